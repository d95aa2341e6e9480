package oauth

import (
	"context"
	"net/http"
)

// traceTransport calls Config.Trace around each request. It adds no header: the
// authorization server is a third party, and a trace ID would tell it which requests of
// its users belong together.
type traceTransport struct {
	base  http.RoundTripper
	trace func(ctx context.Context, method, url string) (context.Context, func(status int, err error))
}

// traced returns the client with traced requests, or the client itself without a trace.
func traced(c *http.Client, trace func(ctx context.Context, method, url string) (context.Context, func(status int, err error))) *http.Client {
	if trace != nil {
		c.Transport = traceTransport{c.Transport, trace}
	}
	return c
}

func (t traceTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	u := *r.URL
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	ctx, done := t.trace(r.Context(), r.Method, u.String())
	if ctx != r.Context() {
		r = r.WithContext(ctx)
	}
	resp, err := t.base.RoundTrip(r)
	status := 0
	if resp != nil {
		status = resp.StatusCode
	}
	done(status, err)
	return resp, err
}

// CloseIdleConnections closes those of the transport below.
func (t traceTransport) CloseIdleConnections() {
	if c, ok := t.base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}
