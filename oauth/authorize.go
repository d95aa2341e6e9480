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
// Connect Core section 3.1.2.1). The last five fields are sent if not empty.
type AuthorizationRequest struct {
	RedirectURI string
	// State and Nonce are random and new for each attempt. Nonce is only sent
	// when OpenID reports true.
	State, Nonce string
	// Verifier is the PKCE code verifier, 43 to 128 unreserved characters. Its
	// S256 challenge is sent.
	Verifier string

	Prompt, LoginHint, ACRValues, UILocales string
	// MaxAge in seconds. It must then be given to VerifyIDToken too.
	MaxAge *int
}

// AuthorizationURL returns where to send the browser for a login. If
// Endpoints.PushedAuthorizationRequest is set or the server demands it, the
// request is pushed first (RFC 9126), and an error can be a *TokenError.
func (c *Client) AuthorizationURL(ctx context.Context, r AuthorizationRequest) (string, error) {
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	if r.RedirectURI == "" || r.State == "" || c.OpenID() && r.Nonce == "" {
		return "", errors.New("building the authorization request: redirect URI, state or nonce is missing")
	}
	if len(r.Verifier) < 43 || len(r.Verifier) > 128 {
		return "", errors.New("building the authorization request: the verifier must have 43 to 128 characters")
	}
	endpoint, err := c.endpoint(ctx, authorizationEndpoint)
	if err != nil {
		return "", fmt.Errorf("building the authorization request: %w", err)
	}
	query := c.authorizationParams(r)
	push, err := c.mustPush(ctx)
	if err != nil {
		return "", fmt.Errorf("building the authorization request: %w", err)
	}
	if push {
		// Also when pushing fails: parameters that the server wants pushed
		// are never sent through the browser instead.
		if query, err = c.pushAuthorizationRequest(ctx, query); err != nil {
			return "", err
		}
	}
	return withQuery(endpoint, query)
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
	setUnlessEmpty("scope", strings.Join(c.scopes, " "))
	setUnlessEmpty("audience", c.audience)
	setUnlessEmpty("prompt", r.Prompt)
	setUnlessEmpty("login_hint", r.LoginHint)
	setUnlessEmpty("acr_values", r.ACRValues)
	setUnlessEmpty("ui_locales", r.UILocales)
	if c.OpenID() {
		q.Set("nonce", r.Nonce)
	}
	if r.MaxAge != nil {
		q.Set("max_age", strconv.Itoa(*r.MaxAge))
	}
	if len(c.resources) > 0 {
		q["resource"] = c.resources
	}
	return q
}

// mustPush decides by configuration and the server's demand. That a server
// merely offers the endpoint is no reason for a call at each login.
func (c *Client) mustPush(ctx context.Context) (bool, error) {
	if c.endpoints[parEndpoint] != "" {
		return true, nil
	}
	m, err := c.metadata(ctx)
	return m != nil && m.requirePAR, err
}

// pushAuthorizationRequest returns the parameters that stand for the pushed
// ones (RFC 9126 section 4).
func (c *Client) pushAuthorizationRequest(ctx context.Context, query url.Values) (url.Values, error) {
	release, err := c.pushes.acquire(ctx, parEndpoint)
	if err != nil {
		return nil, err
	}
	defer release()
	a, err := c.post(ctx, parEndpoint, query)
	if err != nil {
		return nil, err
	}
	members, err := parseObject(a.body)
	if err != nil {
		return nil, malformed(parEndpoint, a.status, err)
	}
	requestURI, _ := stringMember(members, "request_uri")
	if requestURI == "" || !printable(requestURI) || a.status != http.StatusCreated && a.status != http.StatusOK {
		return nil, malformed(parEndpoint, a.status, errors.New("the answer has no request_uri"))
	}
	return url.Values{"client_id": {c.clientID}, "request_uri": {requestURI}}, nil
}

// CheckIssuer checks the parameter iss of an authorization response, given
// with all its values (RFC 9207 section 2.4). It applies to error responses
// too, and before anything else in the response is believed. A missing iss is
// an error if the server's metadata promises one. Without Config.Issuer there
// is nothing to compare with, and only a repeated parameter is an error.
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
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	m, err := c.metadata(ctx)
	if err != nil {
		return fmt.Errorf("checking the issuer of the authorization response: %w", err)
	}
	if m != nil && m.issParameter {
		return errors.New("checking the issuer of the authorization response: " +
			"iss is missing, though the server's metadata promises it")
	}
	return nil
}
