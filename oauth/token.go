package oauth

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
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
	tokens, err := c.requestTokens(ctx, form, c.tokenParams, delivery{})
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
// request, since a single-use token whose answer is not read is lost. Preparing
// and connecting take [Config.Timeout] at most; from the moment the token is
// sent, Refresh waits [Config.RefreshResponseTimeout] for the answer.
//
// confirm, if not nil, is called when the connection stands, right before the
// token is sent. If it returns an error, nothing is sent; the error of Refresh
// is then of the kind Unavailable.
func (c *Client) Refresh(ctx context.Context, refreshToken string, confirm func() error) (*TokenResponse, error) {
	form := url.Values{
		"grant_type":    {"refresh_token"},
		"refresh_token": {refreshToken},
	}
	return c.requestTokens(context.WithValue(ctx, refreshing{}, true), form, c.refreshParams,
		delivery{confirm: confirm, answerTimeout: c.refreshAnswerTimeout})
}

func (c *Client) requestTokens(ctx context.Context, form url.Values, params []Param, d delivery) (*TokenResponse, error) {
	if len(c.resources) > 0 {
		form["resource"] = c.resources
	}
	for _, p := range params {
		form.Add(p.Name, p.Value)
	}
	a, err := c.deliver(ctx, tokenEndpoint, form, d)
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

// delivery says how a form is sent.
type delivery struct {
	// confirm is called right before the form is sent. Its error stops that.
	confirm func() error
	// answerTimeout bounds the wait for the answer, counted from the sending of the
	// form. Zero: Config.Timeout bounds all steps together.
	answerTimeout time.Duration
}

// post sends a form with client authentication to one of the server's
// endpoints, once. It returns answers with status 2xx; all else is a
// *TokenError.
func (c *Client) post(ctx context.Context, endpoint string, form url.Values) (answer, error) {
	return c.deliver(ctx, endpoint, form, delivery{})
}

// deliver is post with a delivery.
func (c *Client) deliver(ctx context.Context, endpoint string, form url.Values, d delivery) (answer, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	deadline := time.AfterFunc(c.timeout, func() { cancel(context.DeadlineExceeded) })
	defer deadline.Stop()
	req, secrets, err := c.newPost(ctx, endpoint, form)
	if err != nil {
		return answer{}, setupError(endpoint, err)
	}
	body := req.Body.(*formBody)
	body.first = func() error {
		if d.confirm != nil {
			if err := d.confirm(); err != nil {
				return err
			}
		}
		if d.answerTimeout > 0 {
			deadline.Reset(d.answerTimeout)
		}
		return nil
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return answer{}, body.failure(ctx, endpoint, 0, err)
	}
	defer resp.Body.Close()
	a := answer{sent: body.sentAt(), status: resp.StatusCode, header: resp.Header, secrets: secrets}
	a.body, err = readBody(resp)
	switch {
	case errors.Is(err, errTooLarge):
		return answer{}, malformed(endpoint, a.status, err)
	case err != nil:
		return answer{}, body.failure(ctx, endpoint, a.status, err)
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

// formBody notes when net/http began to read it. Before that no byte of the
// grant can have left this process, since net/http reads a body with a known
// length only to write it to an established connection.
type formBody struct {
	io.Reader
	first func() error // called before the first byte is read; its error stops that

	mu    sync.Mutex
	begun bool
	sent  time.Time // when first allowed the reading
	err   error     // why nothing may be read
}

func (b *formBody) Read(p []byte) (int, error) {
	if err := b.begin(); err != nil {
		return 0, err
	}
	return b.Reader.Read(p)
}

func (b *formBody) begin() error {
	b.mu.Lock()
	first := !b.begun && b.err == nil
	b.begun = true
	b.mu.Unlock()
	var err error
	if first {
		err = b.first()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		b.err = err
	}
	if first && b.err == nil {
		b.sent = time.Now()
	}
	return b.err
}

// Close keeps a reading from beginning when the request is over: the call has
// returned that nothing was sent.
func (b *formBody) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.sent.IsZero() && b.err == nil {
		b.err = http.ErrBodyReadAfterClose
	}
	return nil
}

// sentAt returns when the form was sent. A server may answer before.
func (b *formBody) sentAt() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.sent.IsZero() {
		return time.Now()
	}
	return b.sent
}

// failure sorts an error by whether the form was sent, and whether the
// connection broke or the time was over.
func (b *formBody) failure(ctx context.Context, endpoint string, status int, err error) *TokenError {
	_ = b.Close() // what was not sent by now will not be
	b.mu.Lock()
	defer b.mu.Unlock()
	kind := Unavailable
	switch {
	case b.sent.IsZero():
	case ctx.Err() != nil:
		kind = TimedOut
	default:
		kind = Unanswered
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return &TokenError{Endpoint: endpoint, Kind: kind, Status: status, Err: connError(err)}
}
