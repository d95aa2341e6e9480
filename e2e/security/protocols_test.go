package security

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"testing"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"golang.org/x/net/http2"

	"github.com/oauth-session/caddy-oauth-session/e2e/client"
)

// transport3 connects to the first instance over HTTP/3.
func (w *world) transport3(t testing.TB) *http3.Transport {
	tr := &http3.Transport{
		TLSClientConfig: &tls.Config{RootCAs: w.authority, ServerName: siteName},
		Dial: func(ctx context.Context, _ string, c *tls.Config, config *quic.Config) (*quic.Conn, error) {
			return quic.DialAddrEarly(ctx, w.instances[0].addr, c, config)
		},
	}
	t.Cleanup(func() { tr.Close() })
	return tr
}

// browser3 returns a browser that uses only HTTP/3, and so reaches only the site.
func (w *world) browser3(t testing.TB) *browser {
	b := &browser{Client: client.New("", ""), w: w}
	b.Through(&scanningTransport{w, w.transport3(t)}, w.host, func() string { return w.host })
	return b
}

// dialTLS connects to the first instance and offers one protocol (ALPN).
func (w *world) dialTLS(ctx context.Context, protocol string) (net.Conn, error) {
	dialer := tls.Dialer{Config: &tls.Config{RootCAs: w.authority, ServerName: siteName, NextProtos: []string{protocol}}}
	return dialer.DialContext(ctx, "tcp", w.instances[0].addr)
}

// protocols are the protocols of the site.
var protocols = []string{"HTTP/1.1", "HTTP/2", "HTTP/3"}

// over returns a transport to the first instance that also supports WebSockets.
func (w *world) over(t testing.TB, protocol string) http.RoundTripper {
	switch protocol {
	case "HTTP/1.1":
		tr := &http.Transport{DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return w.dialTLS(ctx, "http/1.1") }}
		t.Cleanup(tr.CloseIdleConnections)
		return tr
	case "HTTP/2":
		tr := &http2.Transport{DialTLSContext: func(ctx context.Context, _, _ string, _ *tls.Config) (net.Conn, error) { return w.dialTLS(ctx, "h2") }}
		t.Cleanup(tr.CloseIdleConnections)
		return tr
	}
	return w.transport3(t)
}
