package oauth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	// maxClaimSources is how many sources of one ID token or UserInfo response are read.
	maxClaimSources = 5
	// claimSourcesTimeout limits the reading of all of them. A user waits for it.
	claimSourcesTimeout = 5 * time.Second
)

// The members of a set of claims that name other sources (OpenID Connect Core section
// 5.6.2).
const (
	claimNames   = "_claim_names"
	claimSources = "_claim_sources"
)

// unsourcedClaims describe the login, the session or a token. No other source can
// supply them.
var unsourcedClaims = []string{
	"iss", "sub", "aud", "azp", "exp", "iat", "nbf", "nonce", "at_hash", "c_hash", "s_hash", "jti", "sid", "auth_time", "acr", "amr",
	"session_expiry", "events", "cnf", claimNames, claimSources,
}

// claimsJWT is what other sources sign.
var claimsJWT = jwtKind{name: "claims JWT", types: []string{"JWT"}, maxSize: 2 * maxToken}

// MissingClaims are claims that another source has and that could not be read.
type MissingClaims struct {
	Names []string
	// Err is the cause. It contains no token.
	Err error
}

// SourcedClaims reads the claims that an ID token or a UserInfo response leaves to other
// sources: aggregated claims, which come as a JWT, and distributed claims, which are
// fetched (OpenID Connect Core section 5.6.2). Members are the verified claims of the
// token or response. The result has only claims that _claim_names assigns to the source,
// that Members lacks, and that do not describe the login itself.
//
// A source counts only if the keys of the issuer that its JWT names have signed it. Claims
// of other sources are missing; they do not fail the login. SourcedClaims reads five
// sources at most, and takes five seconds at most.
//
// The server names the URLs, so they are bounded: https, and public addresses only,
// except for the hosts of the server itself. A source without an access token is not
// asked: the access token of the user is for the server alone.
func (c *Client) SourcedClaims(ctx context.Context, members map[string]json.RawMessage) (map[string]json.RawMessage, []MissingClaims) {
	wanted := wantedClaims(members)
	if len(wanted) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, min(c.timeout, claimSourcesTimeout))
	defer cancel()
	sources, _ := parseObject(members[claimSources])
	ids := slices.Sorted(maps.Keys(wanted))
	found := make([]map[string]json.RawMessage, len(ids))
	errs := make([]error, len(ids))
	var reading sync.WaitGroup
	for i, id := range ids {
		if i >= maxClaimSources {
			errs[i] = fmt.Errorf("more than %d sources", maxClaimSources)
			continue
		}
		reading.Go(func() { found[i], errs[i] = c.readSource(ctx, sources[id]) })
	}
	reading.Wait()
	sourced := make(map[string]json.RawMessage)
	var missing []MissingClaims
	for i, id := range ids {
		m := MissingClaims{Err: errs[i]}
		for _, name := range wanted[id] {
			if value, ok := found[i][name]; ok {
				sourced[name] = value
			} else {
				m.Names = append(m.Names, name)
			}
		}
		if m.Err == nil && m.Names != nil {
			m.Err = errors.New("the source does not have them")
		}
		if m.Err != nil {
			missing = append(missing, m)
		}
	}
	return sourced, missing
}

// wantedClaims returns the names of the claims to read from each source, by its ID. It
// ignores members of a wrong type.
func wantedClaims(members map[string]json.RawMessage) map[string][]string {
	names, err := parseObject(members[claimNames])
	if err != nil {
		return nil
	}
	wanted := make(map[string][]string)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		id, ok := stringMember(names, name)
		if _, stated := members[name]; ok && !stated && !slices.Contains(unsourcedClaims, name) {
			wanted[id] = append(wanted[id], name)
		}
	}
	return wanted
}

var errNoSourceToken = errors.New("the source has to be asked with an access token, and the server has sent none for it")

// readSource returns the verified claims of one source.
func (c *Client) readSource(ctx context.Context, source json.RawMessage) (claims, error) {
	members, err := parseObject(source)
	if err != nil {
		return nil, errors.New("the source is not described")
	}
	raw, aggregated := stringMember(members, "JWT")
	endpoint, distributed := stringMember(members, "endpoint")
	switch {
	case aggregated:
	case distributed:
		token, ok := stringMember(members, "access_token")
		if !ok {
			return nil, errNoSourceToken
		}
		if raw, err = c.fetchClaims(ctx, endpoint, token); err != nil {
			return nil, fmt.Errorf("fetching claims: %w", err)
		}
	default:
		return nil, errors.New("the source has neither a JWT nor an endpoint")
	}
	p, err := c.verifyClaims(ctx, raw)
	if err != nil {
		return nil, fmt.Errorf("verifying claims: %w", err)
	}
	return p, nil
}

// fetchClaims gets the JWT of a distributed source.
func (c *Client) fetchClaims(ctx context.Context, endpoint, token string) (string, error) {
	if err := c.checkSourceURL(endpoint); err != nil {
		return "", fmt.Errorf("the endpoint of the source %w", err)
	}
	if checkAccessToken(token) != nil {
		return "", errors.New("the access token of the source is not usable")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint, nil)
	if err != nil {
		return "", errors.New("the endpoint of the source is not a URL")
	}
	req.Header.Set("Accept", "application/jwt")
	req.Header.Set("Authorization", "Bearer "+token)
	release, err := c.sourceSlots.acquire(ctx, "claims endpoint")
	if err != nil {
		return "", err
	}
	defer release()
	resp, err := c.httpFor(endpoint).Do(req)
	if err != nil {
		return "", connError(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", statusError(resp.StatusCode)
	}
	body, err := readBody(resp)
	switch {
	case errors.Is(err, errTooLarge):
		return "", err
	case err != nil:
		return "", connError(err)
	}
	return strings.TrimSpace(string(body)), nil
}

// verifyClaims returns the claims of a JWT that its own issuer has signed. The
// algorithm is that of a key of the issuer. exp and nbf are checked if they exist; the
// audience is often the server, so it says nothing.
func (c *Client) verifyClaims(ctx context.Context, raw string) (claims, error) {
	header, err := parseHeader(raw, claimsJWT)
	if err != nil {
		return nil, err
	}
	unverified, err := unverifiedClaims(raw)
	if err != nil {
		return nil, err
	}
	issuer, err := unverified.text("iss")
	if err != nil || issuer == "" {
		return nil, errors.New("the token has no iss, so its keys are unknown")
	}
	provider, err := c.claimsProvider(issuer)
	if err != nil {
		return nil, fmt.Errorf("its issuer %s %w", quote(issuer), err)
	}
	p, err := verifyWithKeys(ctx, raw, header, provider.keys, &provider.sourceKeys)
	if err != nil {
		return nil, err
	}
	if err := jwt.NewValidator(jwt.WithLeeway(leeway)).Validate(&p); err != nil {
		return nil, p.explain(err, issuer, time.Now())
	}
	return p, nil
}
