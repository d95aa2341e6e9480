package oauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// ErrMetadataUnavailable means that the server's metadata was never fetched in
// a usable state. It is fetched again by later calls.
var ErrMetadataUnavailable = errors.New("the authorization server's metadata is not available")

// errNotMetadata marks an answer that tells us to look in another place.
var errNotMetadata = errors.New("no metadata there")

// metadata is what we use of OpenID Connect Discovery and RFC 8414.
type metadata struct {
	endpoints    map[string]string
	refused      map[string]error // endpoints with a URL that is not used
	authMethods  []string         // token_endpoint_auth_methods_supported
	idTokenAlgs  []string         // id_token_signing_alg_values_supported
	issParameter bool             // authorization_response_iss_parameter_supported
	requirePAR   bool             // require_pushed_authorization_requests
}

// metadata returns the server's metadata, or nil without an error when the
// configuration alone is enough and none is fetched.
func (c *Client) metadata(ctx context.Context) (*metadata, error) {
	if c.static {
		return nil, nil
	}
	s, err := c.discovery.get(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMetadataUnavailable, err)
	}
	return &s.value, nil
}

// metadataURLs lists where the metadata may be, in the order to be asked.
func metadataURLs(issuer, discoveryURL string) []string {
	if discoveryURL != "" {
		return []string{discoveryURL}
	}
	u, err := url.Parse(issuer)
	if err != nil || issuer == "" {
		return nil
	}
	// OpenID Connect Discovery appends to the issuer, after its terminating
	// slash is removed; RFC 8414 section 3.1 inserts before the issuer's path.
	path := strings.TrimRight(u.EscapedPath(), "/")
	origin := u.Scheme + "://" + u.Host
	return []string{
		origin + path + "/.well-known/openid-configuration",
		origin + "/.well-known/oauth-authorization-server" + path,
	}
}

func (c *Client) fetchMetadata(ctx context.Context) (metadata, time.Duration, error) {
	var first error
	for _, u := range c.metadataURLs {
		body, fresh, err := c.fetchDocument(ctx, u)
		if s, ok := errors.AsType[statusError](err); ok && s >= 300 && s < 500 && s != http.StatusTooManyRequests {
			err = fmt.Errorf("%w (%w)", errNotMetadata, s)
		}
		var m metadata
		if err == nil {
			m, err = parseMetadata(body, c.issuer, u)
		}
		if err == nil {
			return m, fresh, nil
		}
		err = fmt.Errorf("fetching %s: %w", u, err)
		if first == nil {
			first = err
		}
		if !errors.Is(err, errNotMetadata) {
			return metadata{}, 0, err
		}
	}
	return metadata{}, 0, first
}

// parseMetadata reads a metadata document. Members of another type than
// expected count as missing. A document of another issuer is refused whole.
func parseMetadata(body []byte, issuer, from string) (metadata, error) {
	members, err := parseObject(body)
	if err != nil {
		return metadata{}, fmt.Errorf("%w: %w", errNotMetadata, err)
	}
	got, _ := stringMember(members, "issuer")
	if got != issuer {
		// OpenID Connect Discovery section 4.3, RFC 8414 section 3.3.
		return metadata{}, fmt.Errorf("the metadata names the issuer %s, but the option issuer says %s: "+
			"they must be equal to the letter; if the metadata is served under another name than "+
			"the issuer's, keep issuer as the server says it and set discovery_url", quote(got), quote(issuer))
	}
	m := metadata{
		endpoints:   make(map[string]string),
		refused:     make(map[string]error),
		authMethods: stringsMember(members, "token_endpoint_auth_methods_supported"),
		idTokenAlgs: stringsMember(members, "id_token_signing_alg_values_supported"),
	}
	for _, name := range endpointNames {
		u, ok := stringMember(members, name)
		if !ok || u == "" {
			continue
		}
		err := checkURL(u)
		if err == nil && strings.HasPrefix(from, "https:") && !strings.HasPrefix(strings.ToLower(u), "https:") {
			// Plain http leads to this machine, where others listen than the
			// authorization server: Caddy's admin endpoint, for one.
			err = errors.New("must be https, as the metadata itself is")
		}
		if err != nil {
			m.refused[name] = err
			continue
		}
		m.endpoints[name] = u
	}
	m.issParameter = boolMember(members, "authorization_response_iss_parameter_supported")
	m.requirePAR = boolMember(members, "require_pushed_authorization_requests")
	return m, nil
}
