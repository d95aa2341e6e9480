package oauth

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// AuthorizationRequest is one login attempt (RFC 6749 section 4.1.1, OpenID
// Connect Core section 3.1.2.1).
type AuthorizationRequest struct {
	// RedirectURI is the registered URI of the callback. Required.
	RedirectURI string
	// State and Nonce must be random and new for each attempt. State is required.
	// Nonce is required and sent only if OpenID reports true.
	State, Nonce string
	// Verifier is the PKCE code verifier: 43 to 128 unreserved characters (RFC 7636
	// section 4.1). Required. The request contains its S256 challenge.
	Verifier string

	// Prompt, LoginHint, ACRValues and UILocales are the parameters prompt,
	// login_hint, acr_values and ui_locales. An empty one is not sent, unless
	// Config.AuthorizeParams has it. Give ACRValues to VerifyIDToken, too.
	Prompt, LoginHint, ACRValues, UILocales string
	// MaxAge is the parameter max_age in seconds. If Config.AuthorizeParams has one,
	// too, the smaller one is sent. Nil means that of Config.AuthorizeParams, or none.
	// Give it to VerifyIDToken, too.
	MaxAge *int

	// Params are further parameters, which replace those of the same name in
	// Config.AuthorizeParams. CheckLoginParam must accept their names.
	Params []Param
}

// maxPlainURL is the longest authorization URL, in bytes, that is not pushed if the
// server offers that. Some servers and proxies accept at most 2,048 bytes of query.
const maxPlainURL = 2000

// AuthorizationURL returns the URL that the browser must visit to log in. If
// Endpoints.PushedAuthorizationRequest is set, or if the server's metadata
// requires it, AuthorizationURL first pushes the request (RFC 9126). An error of
// that call is a *TokenError.
//
// If the metadata only offers an endpoint for it, AuthorizationURL pushes requests
// that would make a URL of more than 2,000 bytes. If that fails, it returns the long
// URL.
func (c *Client) AuthorizationURL(ctx context.Context, r AuthorizationRequest) (string, error) {
	ctx, cancel := c.withTimeout(ctx)
	defer cancel()
	if r.RedirectURI == "" || r.State == "" || c.OpenID() && r.Nonce == "" {
		return "", errors.New("building the authorization request: redirect URI, state or nonce is missing")
	}
	if len(r.Verifier) < 43 || len(r.Verifier) > 128 {
		return "", errors.New("building the authorization request: the verifier must have 43 to 128 characters")
	}
	for _, p := range r.Params {
		if err := CheckLoginParam(p.Name); err != nil {
			return "", fmt.Errorf("building the authorization request: %w", err)
		}
	}
	endpoint, err := c.endpoint(ctx, authorizationEndpoint)
	if err != nil {
		return "", fmt.Errorf("building the authorization request: %w", err)
	}
	query := c.authorizationParams(r)
	plain, err := withQuery(endpoint, query)
	if err != nil {
		return "", err
	}
	must, may, err := c.canPush(ctx)
	if err != nil {
		return "", fmt.Errorf("building the authorization request: %w", err)
	}
	if !must && (!may || len(plain) <= maxPlainURL) {
		return plain, nil
	}
	pushed, err := c.pushAuthorizationRequest(ctx, query)
	switch {
	case err == nil:
		return withQuery(endpoint, pushed)
	case must:
		// The login fails: parameters that must be pushed are never sent through the
		// browser.
		return "", err
	}
	return plain, nil
}

func (c *Client) authorizationParams(r AuthorizationRequest) url.Values {
	challenge := sha256.Sum256([]byte(r.Verifier))
	q := url.Values{
		"response_type":         {"code"},
		"client_id":             {c.clientID},
		"redirect_uri":          {r.RedirectURI},
		"state":                 {r.State},
		"code_challenge":        {base64.RawURLEncoding.EncodeToString(challenge[:])},
		"code_challenge_method": {"S256"},
	}
	for _, p := range c.authorizeParams {
		q.Add(p.Name, p.Value)
	}
	setUnlessEmpty := func(name, value string) {
		if value != "" {
			q.Set(name, value)
		}
	}
	for _, p := range r.Params {
		setUnlessEmpty(p.Name, p.Value)
	}
	setUnlessEmpty("response_mode", c.responseMode)
	setUnlessEmpty("scope", strings.Join(c.scopes, " "))
	setUnlessEmpty("audience", c.audience)
	setUnlessEmpty("prompt", r.Prompt)
	setUnlessEmpty("login_hint", r.LoginHint)
	setUnlessEmpty("acr_values", r.ACRValues)
	setUnlessEmpty("ui_locales", r.UILocales)
	if c.OpenID() {
		q.Set("nonce", r.Nonce)
	}
	if age := c.smallerMaxAge(r.MaxAge); age != nil {
		q.Set("max_age", strconv.Itoa(*age))
	}
	if len(c.resources) > 0 {
		q["resource"] = c.resources
	}
	return q
}

// canPush reports whether the configuration or the server requires pushed requests,
// and whether the server offers them. An offer alone is not worth an extra call at
// each login: every visitor without a session would cause one.
func (c *Client) canPush(ctx context.Context) (must, may bool, err error) {
	if c.endpoints[parEndpoint] != "" {
		return true, true, nil
	}
	m, err := c.metadata(ctx)
	if m == nil {
		return false, false, err
	}
	return m.requirePAR, m.endpoints[parEndpoint] != "", nil
}

// smallerMaxAge returns the smaller one of a request's max_age and the configured
// one. Nil means none.
func (c *Client) smallerMaxAge(requested *int) *int {
	if requested == nil || c.maxAge != nil && *c.maxAge < *requested {
		return c.maxAge
	}
	return requested
}

// pushAuthorizationRequest pushes the parameters, and returns those that refer to
// them (RFC 9126 section 4).
func (c *Client) pushAuthorizationRequest(ctx context.Context, query url.Values) (url.Values, error) {
	release, err := c.pushSlots.acquire(ctx, parEndpoint)
	if err != nil {
		return nil, err
	}
	defer release()
	r, err := c.post(ctx, parEndpoint, query)
	if err != nil {
		return nil, err
	}
	members, err := parseObject(r.body)
	if err != nil {
		return nil, malformedError(parEndpoint, r.status, err)
	}
	requestURI, _ := stringMember(members, "request_uri")
	if requestURI == "" || !isPrintable(requestURI) || r.status != http.StatusCreated && r.status != http.StatusOK {
		return nil, malformedError(parEndpoint, r.status, errors.New("the response has no request_uri"))
	}
	return url.Values{"client_id": {c.clientID}, "request_uri": {requestURI}}, nil
}

// CheckIssuer checks the parameter iss of an authorization response (RFC 9207
// section 2.4). The argument holds all values of the parameter. The caller must
// call CheckIssuer before it uses any other part of the response, also of an error
// response. A missing iss is an error if the server's metadata announces one.
// Without Config.Issuer only a repeated parameter is an error.
func (c *Client) CheckIssuer(ctx context.Context, iss []string) error {
	switch {
	case len(iss) > 1:
		return errors.New("checking the issuer of the authorization response: iss is repeated")
	case c.issuer == "":
		return nil
	case len(iss) == 1:
		if iss[0] != c.issuer {
			return fmt.Errorf("checking the issuer of the authorization response: it comes from %s, not from %s",
				quote(iss[0]), quote(c.issuer))
		}
		return nil
	}
	ctx, cancel := c.withTimeout(ctx)
	defer cancel()
	m, err := c.metadata(ctx)
	if err != nil {
		return fmt.Errorf("checking the issuer of the authorization response: %w", err)
	}
	if m != nil && m.issParameter {
		return errors.New("checking the issuer of the authorization response: " +
			"iss is missing, although the server's metadata announces it")
	}
	return nil
}
