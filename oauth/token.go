package oauth

import (
	"context"
	"errors"
	"net/http"
	"net/url"
)

// RedeemCode exchanges an authorization code for tokens (RFC 6749 section
// 4.1.3, RFC 7636 section 4.5). The redirect URI must equal that of the
// authorization request. If OpenID reports true, the response has an ID token,
// which the caller must give to VerifyIDToken. All errors are *TokenError.
//
// RedeemCode sends the code at most once. If 32 calls are running, it waits up to
// five seconds, and then fails with a TokenError of the kind Unavailable for which
// errors.Is reports ErrBusy.
func (c *Client) RedeemCode(ctx context.Context, code, verifier, redirectURI string) (*TokenResponse, error) {
	release, err := c.codeSlots.acquire(ctx, tokenEndpoint)
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
	tokens, err := c.requestTokens(ctx, form, c.tokenParams, sendOptions{})
	if err == nil && c.OpenID() && tokens.IDToken == "" {
		err = malformedError(tokenEndpoint, http.StatusOK, errors.New("the response has no id_token, although scope openid was requested"))
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
// If the response has a new refresh token but is otherwise unusable, Refresh
// returns the error together with a TokenResponse that holds only RefreshToken
// and RefreshExpires. The caller must store that token: the server has probably
// invalidated the old one.
//
// Refresh sends the refresh token at most once. The caller should detach ctx
// from the browser's request: if the request ends before the response arrives, a
// single-use token is lost. Connecting takes [Config.Timeout] at most; after sending the token,
// Refresh waits up to [Config.RefreshResponseTimeout] for the response.
//
// Refresh calls confirm, if not nil, when the connection is established and
// before it sends the token. If confirm returns an error, Refresh sends nothing
// and fails with a TokenError of the kind Unavailable.
func (c *Client) Refresh(ctx context.Context, refreshToken string, confirm func() error) (*TokenResponse, error) {
	form := url.Values{
		"grant_type":    {"refresh_token"},
		"refresh_token": {refreshToken},
	}
	return c.requestTokens(context.WithValue(ctx, refreshKey{}, true), form, c.refreshParams,
		sendOptions{confirm: confirm, responseTimeout: c.refreshResponseTimeout})
}

func (c *Client) requestTokens(ctx context.Context, form url.Values, params []Param, opts sendOptions) (*TokenResponse, error) {
	if len(c.resources) > 0 {
		form["resource"] = c.resources
	}
	for _, p := range params {
		form.Add(p.Name, p.Value)
	}
	r, err := c.send(ctx, tokenEndpoint, form, opts)
	if err != nil {
		return nil, err
	}
	return parseTokenResponse(r)
}
