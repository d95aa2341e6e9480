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

// response is a complete response to a request.
type response struct {
	status  int
	header  http.Header
	body    []byte
	sent    time.Time // just before the request was sent
	secrets []string  // secrets of the request, which errors must not repeat
}

// sendOptions say how to send a form.
type sendOptions struct {
	// confirm is called right before the form is sent. Its error prevents that.
	confirm func() error
	// responseTimeout limits the wait for the response, counted from the sending of
	// the form. Zero: Config.Timeout limits all steps together.
	responseTimeout time.Duration
}

// post sends a form with client authentication to one of the server's
// endpoints, once. It returns responses with status 2xx; every other outcome is
// a *TokenError.
func (c *Client) post(ctx context.Context, endpoint string, form url.Values) (response, error) {
	return c.send(ctx, endpoint, form, sendOptions{})
}

// send is post with options.
func (c *Client) send(ctx context.Context, endpoint string, form url.Values, opts sendOptions) (response, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	deadline := time.AfterFunc(c.timeout, func() { cancel(context.DeadlineExceeded) })
	defer deadline.Stop()
	req, secrets, err := c.newPost(ctx, endpoint, form)
	if err != nil {
		return response{}, setupError(endpoint, err)
	}
	body := req.Body.(*formBody)
	body.beforeSend = func() error {
		if opts.confirm != nil {
			if err := opts.confirm(); err != nil {
				return err
			}
		}
		if opts.responseTimeout > 0 {
			deadline.Reset(opts.responseTimeout)
		}
		return nil
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return response{}, body.tokenError(ctx, endpoint, 0, err)
	}
	defer resp.Body.Close()
	r := response{sent: body.sentAt(), status: resp.StatusCode, header: resp.Header, secrets: secrets}
	r.body, err = readBody(resp)
	switch {
	case errors.Is(err, errTooLarge):
		return response{}, malformedError(endpoint, r.status, err)
	case err != nil:
		return response{}, body.tokenError(ctx, endpoint, r.status, err)
	case r.status < 200 || r.status >= 300:
		return response{}, responseError(endpoint, r)
	}
	return r, nil
}

// newPost builds the request. It also returns the secrets in the request.
func (c *Client) newPost(ctx context.Context, endpoint string, form url.Values) (*http.Request, []string, error) {
	target, err := c.endpoint(ctx, endpoint)
	if err != nil {
		return nil, nil, err
	}
	header := http.Header{
		"Accept":       {"application/json"}, // without it some servers send HTML
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

// formBody records when net/http began to read it. Before that moment no byte
// of the grant has left this process: net/http reads a body with a known length
// only to write it to an established connection.
type formBody struct {
	io.Reader
	beforeSend func() error // called before the first byte is read; its error prevents that

	mu      sync.Mutex
	started bool      // net/http has called Read
	sent    time.Time // when beforeSend allowed the reading
	err     error     // why nothing may be read
}

func (b *formBody) Read(p []byte) (int, error) {
	if err := b.start(); err != nil {
		return 0, err
	}
	return b.Reader.Read(p)
}

func (b *formBody) start() error {
	b.mu.Lock()
	first := !b.started && b.err == nil
	b.started = true
	b.mu.Unlock()
	var err error
	if first {
		err = b.beforeSend() // without the lock: Close must not wait for it
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

// Close prevents that reading starts after the end of the call, which has
// reported that nothing was sent.
func (b *formBody) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.sent.IsZero() && b.err == nil {
		b.err = http.ErrBodyReadAfterClose
	}
	return nil
}

// sentAt returns when the form was sent. A server may respond before it has read
// the form.
func (b *formBody) sentAt() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.sent.IsZero() {
		return time.Now()
	}
	return b.sent
}

// tokenError classifies an error by two facts: whether the form was sent, and
// whether ctx ended or the connection broke.
func (b *formBody) tokenError(ctx context.Context, endpoint string, status int, err error) *TokenError {
	_ = b.Close() // from here on an unsent form stays unsent
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
