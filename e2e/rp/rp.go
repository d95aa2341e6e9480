// Package rp is a minimal relying party. It shows that the authorization servers and the browser of the tests work by
// themselves, so that a failing test of the proxy points at the proxy. It checks no ID token.
package rp

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// A Client is a registration at one authorization server.
type Client struct {
	ID          string
	Secret      string // empty for a public client, else sent by client_secret_basic
	RedirectURI string
	Scope       string

	server metadata
}

type metadata struct {
	Issuer                string `json:"issuer"`
	AuthorizationEndpoint string `json:"authorization_endpoint"`
	TokenEndpoint         string `json:"token_endpoint"`
	UserinfoEndpoint      string `json:"userinfo_endpoint"`
	EndSessionEndpoint    string `json:"end_session_endpoint"`
}

// Tokens is a successful answer of the token endpoint.
type Tokens struct {
	AccessToken  string `json:"access_token"`
	TokenType    string `json:"token_type"`
	ExpiresIn    int    `json:"expires_in"`
	RefreshToken string `json:"refresh_token"`
	IDToken      string `json:"id_token"`
	Scope        string `json:"scope"`
}

// A ServerError is an answer other than 200 of an endpoint.
type ServerError struct {
	Status int
	Code   string // the error parameter, empty when there was none
}

func (e *ServerError) Error() string {
	return fmt.Sprintf("the server answered %d %s", e.Status, e.Code)
}

// Discover returns a client of the issuer with the endpoints of its OpenID Provider Metadata.
func Discover(ctx context.Context, issuer, id, secret, redirectURI, scope string) (*Client, error) {
	c := &Client{ID: id, Secret: secret, RedirectURI: redirectURI, Scope: scope}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(issuer, "/")+"/.well-known/openid-configuration", nil)
	if err != nil {
		return nil, err
	}
	if err := do(req, &c.server); err != nil {
		return nil, fmt.Errorf("discovering %s: %w", issuer, err)
	}
	if c.server.Issuer != issuer {
		return nil, fmt.Errorf("discovering %s: the document is that of %s", issuer, c.server.Issuer)
	}
	return c, nil
}

// An Attempt is a login that has been started.
type Attempt struct {
	URL      string // to open in the browser
	State    string
	verifier string
}

// Authorize starts a login by authorization code with PKCE (RFC 7636).
func (c *Client) Authorize() Attempt {
	a := Attempt{State: rand.Text(), verifier: rand.Text() + rand.Text()}
	challenge := sha256.Sum256([]byte(a.verifier))
	query := url.Values{
		"response_type":         {"code"},
		"client_id":             {c.ID},
		"redirect_uri":          {c.RedirectURI},
		"scope":                 {c.Scope},
		"state":                 {a.State},
		"nonce":                 {rand.Text()},
		"code_challenge":        {base64.RawURLEncoding.EncodeToString(challenge[:])},
		"code_challenge_method": {"S256"},
	}
	a.URL = c.server.AuthorizationEndpoint + "?" + query.Encode()
	return a
}

// Redeem exchanges the code of a callback for tokens.
func (c *Client) Redeem(ctx context.Context, a Attempt, callback url.Values) (Tokens, error) {
	if callback.Get("state") != a.State {
		return Tokens{}, fmt.Errorf("the callback has another state: %v", callback)
	}
	return c.token(ctx, url.Values{
		"grant_type":    {"authorization_code"},
		"code":          {callback.Get("code")},
		"redirect_uri":  {c.RedirectURI},
		"code_verifier": {a.verifier},
	})
}

// Refresh exchanges a refresh token. A refusal is a *ServerError.
func (c *Client) Refresh(ctx context.Context, refreshToken string) (Tokens, error) {
	return c.token(ctx, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refreshToken}})
}

func (c *Client) token(ctx context.Context, form url.Values) (Tokens, error) {
	if c.Secret == "" {
		form.Set("client_id", c.ID)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.server.TokenEndpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return Tokens{}, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if c.Secret != "" {
		// Both parts are form-encoded first (RFC 6749, section 2.3.1).
		req.SetBasicAuth(url.QueryEscape(c.ID), url.QueryEscape(c.Secret))
	}
	var tokens Tokens
	err = do(req, &tokens)
	return tokens, err
}

// UserInfo returns the claims that the access token gives access to.
func (c *Client) UserInfo(ctx context.Context, accessToken string) (map[string]any, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.server.UserinfoEndpoint, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+accessToken)
	var claims map[string]any
	err = do(req, &claims)
	return claims, err
}

// EndSessionURL returns where the browser goes to log out at the server.
func (c *Client) EndSessionURL(idToken, postLogoutRedirectURI string) string {
	return c.server.EndSessionEndpoint + "?" + url.Values{
		"id_token_hint": {idToken}, "post_logout_redirect_uri": {postLogoutRedirectURI},
	}.Encode()
}

func do(req *http.Request, answer any) error {
	req.Header.Set("Accept", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		refusal := &ServerError{Status: resp.StatusCode}
		var detail struct {
			Error string `json:"error"`
		}
		// The body may be anything; without an error member the status alone counts.
		if json.Unmarshal(body, &detail) == nil {
			refusal.Code = detail.Error
		}
		return refusal
	}
	return json.Unmarshal(body, answer)
}
