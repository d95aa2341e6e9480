package oauth

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"
)

// RedeemCode exchanges an authorization code for tokens (RFC 6749 section
// 4.1.3, RFC 7636 section 4.5). The redirect URI must be the one of the
// authorization request. If OpenID reports true, the response has an ID token,
// which the caller must give to VerifyIDToken. All errors are *TokenError.
//
// The code is sent at most once, and at most 32 codes are under way at a time.
// One that waits for its turn longer than five seconds is not sent, and the
// error is Unavailable.
func (c *Client) RedeemCode(ctx context.Context, code, verifier, redirectURI string) (*TokenResponse, error) {
	release, err := c.codes.acquire(ctx, tokenEndpoint)
	if err != nil {
		return nil, err
	}
	defer release()
	form := url.Values{
		"grant_type":    {"authorization_code"},
		"code":          {code},
		"redirect_uri":  {redirectURI},
		"code_verifier": {verifier},
	}
	tokens, err := c.requestTokens(ctx, form, c.tokenParams)
	if err == nil && c.OpenID() && tokens.IDToken == "" {
		err = malformed(tokenEndpoint, http.StatusOK, errors.New("the answer has no id_token, though scope openid was asked for"))
	}
	if tokenErr, ok := errors.AsType[*TokenError](err); ok && tokens != nil {
		tokenErr.Granted = tokens
	}
	if err != nil {
		return nil, err
	}
	return tokens, nil
}

// Refresh exchanges a refresh token for new tokens (RFC 6749 section 6). An
// empty RefreshToken in the response means that the old one stays valid. All
// errors are *TokenError.
//
// If the server answered with a new refresh token, but with tokens that are
// otherwise not usable, Refresh returns both a response that holds only
// RefreshToken and RefreshExpires, and the error: the old refresh token is
// probably spent, so the new one must be kept all the same.
//
// The refresh token is sent at most once. Callers detach ctx from the browser's
// request, since a single-use token whose answer is not read is lost.
func (c *Client) Refresh(ctx context.Context, refreshToken string) (*TokenResponse, error) {
	form := url.Values{
		"grant_type":    {"refresh_token"},
		"refresh_token": {refreshToken},
	}
	return c.requestTokens(context.WithValue(ctx, refreshing{}, true), form, c.refreshParams)
}

func (c *Client) requestTokens(ctx context.Context, form url.Values, params []Param) (*TokenResponse, error) {
	if len(c.resources) > 0 {
		form["resource"] = c.resources
	}
	for _, p := range params {
		form.Add(p.Name, p.Value)
	}
	a, err := c.post(ctx, tokenEndpoint, form)
	if err != nil {
		return nil, err
	}
	return parseTokenResponse(a)
}

// answer is a complete answer to a POST.
type answer struct {
	status  int
	header  http.Header
	body    []byte
	sent    time.Time // just before the request was sent
	secrets []string  // what must not be repeated
}

// post sends a form with client authentication to one of the server's
// endpoints, once. It returns answers with status 2xx; all else is a
// *TokenError.
func (c *Client) post(ctx context.Context, endpoint string, form url.Values) (answer, error) {
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	req, secrets, err := c.newPost(ctx, endpoint, form)
	if err != nil {
		return answer{}, setupError(endpoint, err)
	}
	body := req.Body.(*formBody)
	a := answer{sent: time.Now(), secrets: secrets}
	resp, err := c.http.Do(req)
	if err != nil {
		kind := Unavailable
		if body.read.Load() {
			kind = Unanswered
		}
		return answer{}, &TokenError{Endpoint: endpoint, Kind: kind, Err: connError(err)}
	}
	defer resp.Body.Close()
	a.status, a.header = resp.StatusCode, resp.Header
	a.body, err = readBody(resp)
	switch {
	case errors.Is(err, errTooLarge):
		return answer{}, malformed(endpoint, a.status, err)
	case err != nil:
		return answer{}, &TokenError{Endpoint: endpoint, Kind: Unanswered, Status: a.status, Err: connError(err)}
	case a.status < 200 || a.status >= 300:
		return answer{}, answerError(endpoint, a)
	}
	return a, nil
}

// newPost builds the request. It returns the secrets it holds beside it.
func (c *Client) newPost(ctx context.Context, endpoint string, form url.Values) (*http.Request, []string, error) {
	target, err := c.endpoint(ctx, endpoint)
	if err != nil {
		return nil, nil, err
	}
	header := http.Header{
		"Accept":       {"application/json"}, // some servers answer HTML without it
		"Content-Type": {"application/x-www-form-urlencoded"},
	}
	secrets, err := c.authenticate(ctx, header, form)
	if err != nil {
		return nil, nil, err
	}
	for _, name := range []string{"code", "code_verifier", "refresh_token", "token"} {
		if v := form.Get(name); v != "" {
			secrets = append(secrets, v, url.QueryEscape(v))
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, nil)
	if err != nil {
		return nil, nil, errors.New(endpoint + " is not a URL")
	}
	encoded := form.Encode()
	req.Header = header
	req.Body = &formBody{Reader: strings.NewReader(encoded)}
	req.ContentLength = int64(len(encoded))
	// Without GetBody net/http cannot send the form a second time when a
	// kept-alive connection turns out to be dead.
	req.GetBody = nil
	return req, secrets, nil
}

// formBody notes whether net/http began to read it. Before that no byte of the
// grant can have left this process, since net/http reads a body with a known
// length only to write it to an established connection.
type formBody struct {
	io.Reader
	read atomic.Bool
}

func (b *formBody) Read(p []byte) (int, error) {
	b.read.Store(true)
	return b.Reader.Read(p)
}

func (b *formBody) Close() error { return nil }
