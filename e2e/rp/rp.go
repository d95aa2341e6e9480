// Package rp is a minimal relying party. Its tests show that the authorization servers and the browser work without the
// proxy, so that the failure of another test points at the proxy. It does not verify ID tokens.
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
	"time"
)

// A Client is a client registered at one authorization server.
type Client struct {
	ID          string
	Secret      string // for client_secret_basic; empty for a public client
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

// A ServerError is an endpoint's answer with a status other than 200.
type ServerError struct {
	Status int
	Code   string // the error parameter, or ""
}

func (e *ServerError) Error() string {
	return fmt.Sprintf("the server answered %d %s", e.Status, e.Code)
}

// Discover reads the issuer's OpenID Provider Metadata and returns a client with its endpoints.
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
		return nil, fmt.Errorf("discovering %s: got the metadata of %s", issuer, c.server.Issuer)
	}
	return c, nil
}

// An Attempt is a login that the client has started.
type Attempt struct {
	URL      string // for the browser
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
		return Tokens{}, fmt.Errorf("got callback %v, want the state %s", callback, a.State)
	}
	return c.token(ctx, url.Values{
		"grant_type":    {"authorization_code"},
		"code":          {callback.Get("code")},
		"redirect_uri":  {c.RedirectURI},
		"code_verifier": {a.verifier},
	})
}

// Refresh redeems a refresh token. If the server refuses it, the error is a *ServerError.
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
		// RFC 6749, section 2.3.1: both parts are form-encoded first.
		req.SetBasicAuth(url.QueryEscape(c.ID), url.QueryEscape(c.Secret))
	}
	var tokens Tokens
	err = do(req, &tokens)
	return tokens, err
}

// UserInfo returns the UserInfo claims for the access token.
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

// EndSessionURL returns the URL of a logout at the server.
func (c *Client) EndSessionURL(idToken, postLogoutRedirectURI string) string {
	return c.server.EndSessionEndpoint + "?" + url.Values{
		"id_token_hint": {idToken}, "post_logout_redirect_uri": {postLogoutRedirectURI},
	}.Encode()
}

// httpClient uses a new connection for each request: a test may make the server break
// connections, and no request of another test may wait on one of them.
var httpClient = &http.Client{Timeout: 2 * time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}

func do(req *http.Request, answer any) error {
	req.Header.Set("Accept", "application/json")
	resp, err := httpClient.Do(req)
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
		// A body without an error member leaves the code empty.
		if json.Unmarshal(body, &detail) == nil {
			refusal.Code = detail.Error
		}
		return refusal
	}
	return json.Unmarshal(body, answer)
}
