package handler

import (
	"bufio"
	"context"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// retryAge is the least age of a token that is refreshed because an app calls
// it invalid. An app that calls every token invalid must not cause a refresh
// for each request.
const retryAge = 10 * time.Second

// relayRetrying relays a request, and if the app answers that its token is
// invalid, does so once more with a new one. The first answer is then not seen
// by the client. A request with a body cannot be repeated: its answer passes,
// and the next request has the new token.
func (h *Handler) relayRetrying(w http.ResponseWriter, r *http.Request, c cookies, s *session.Session, next func(http.ResponseWriter, *http.Request) error) error {
	probe := &probeWriter{ResponseWriter: w, header: maps.Clone(w.Header())}
	probe.refuse = func() bool { return hasNoBody(r) && time.Since(s.TokenObtained) >= retryAge }
	err := h.relayOnce(probe, r, c, s.AccessToken, next)
	if !probe.invalidToken || time.Since(s.TokenObtained) < retryAge {
		return err
	}
	if !probe.refused {
		// The answer is out; whoever comes next has the new token.
		ctx := context.WithoutCancel(r.Context())
		go func() { _, _ = h.Keeper.FreshOtherThan(ctx, c.secret, s.AccessToken) }()
		return err
	}
	fresh, freshErr := h.Keeper.FreshOtherThan(r.Context(), c.secret, s.AccessToken)
	if freshErr != nil {
		// There is no better answer than the app's.
		probe.pass()
		return err
	}
	return h.relayOnce(w, r, c, fresh.AccessToken, next)
}

func (h *Handler) relayOnce(w http.ResponseWriter, r *http.Request, c cookies, token string, next func(http.ResponseWriter, *http.Request) error) error {
	defer h.prepare(r, c, token).restore()
	return next(w, r)
}

func hasNoBody(r *http.Request) bool {
	return (r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0) && !isWebSocket(r)
}

// saysInvalidToken reads the challenge of RFC 6750, section 3.
func saysInvalidToken(status int, header http.Header) bool {
	if status != http.StatusUnauthorized {
		return false
	}
	for _, challenge := range header.Values("WWW-Authenticate") {
		scheme, params, _ := strings.Cut(challenge, " ")
		if strings.EqualFold(scheme, "Bearer") && strings.Contains(params, "invalid_token") {
			return true
		}
	}
	return false
}

// maxRefusedBody bounds what is kept of an answer that may still have to be
// shown.
const maxRefusedBody = 64 << 10

// probeWriter looks at the status of an answer before it lets it pass. What it
// refuses it keeps, up to a bound; everything else passes untouched.
type probeWriter struct {
	http.ResponseWriter
	header http.Header // until the answer passes
	refuse func() bool

	passed       bool
	invalidToken bool // the answer said so
	refused      bool
	status       int
	body         []byte
}

// Header is the client's as soon as the answer passes: trailers are set there.
func (p *probeWriter) Header() http.Header {
	if p.passed {
		return p.ResponseWriter.Header()
	}
	return p.header
}

func (p *probeWriter) WriteHeader(status int) {
	switch {
	case p.passed:
		p.ResponseWriter.WriteHeader(status)
		return
	case p.refused:
		return
	case status < http.StatusOK && status != http.StatusSwitchingProtocols:
		p.copyHeader()
		p.ResponseWriter.WriteHeader(status)
		return
	}
	p.status = status
	p.invalidToken = saysInvalidToken(status, p.header)
	if p.invalidToken && p.refuse() {
		p.refused = true
		return
	}
	p.passHeader()
}

func (p *probeWriter) copyHeader() {
	header := p.ResponseWriter.Header()
	clear(header)
	maps.Copy(header, p.header)
}

func (p *probeWriter) passHeader() {
	p.copyHeader()
	p.passed = true
	p.ResponseWriter.WriteHeader(p.status)
}

// pass shows the client what was refused.
func (p *probeWriter) pass() {
	p.header.Del("Content-Length") // the body may have been cut
	p.passHeader()
	_, _ = p.ResponseWriter.Write(p.body)
}

func (p *probeWriter) Write(b []byte) (int, error) {
	if !p.passed && !p.refused {
		p.WriteHeader(http.StatusOK)
	}
	if p.refused {
		p.body = append(p.body, b[:min(len(b), maxRefusedBody-len(p.body))]...)
		return len(b), nil
	}
	return p.ResponseWriter.Write(b)
}

// ReadFrom keeps the fast path of the writer below.
func (p *probeWriter) ReadFrom(r io.Reader) (int64, error) {
	if !p.passed && !p.refused {
		p.WriteHeader(http.StatusOK)
	}
	if p.refused {
		return io.Copy(writerOnly{p}, r)
	}
	return io.Copy(p.ResponseWriter, r)
}

type writerOnly struct{ io.Writer }

// FlushError sends nothing of an answer that does not pass.
func (p *probeWriter) FlushError() error {
	if p.refused {
		return nil
	}
	if !p.passed {
		p.WriteHeader(http.StatusOK)
	}
	return http.NewResponseController(p.ResponseWriter).Flush()
}

// Flush is FlushError for those who ask for an http.Flusher.
func (p *probeWriter) Flush() { _ = p.FlushError() }

// Hijack hands over the connection, with the headers set so far.
func (p *probeWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	p.copyHeader()
	p.passed = true
	return http.NewResponseController(p.ResponseWriter).Hijack()
}

// Unwrap lets an http.ResponseController set deadlines.
func (p *probeWriter) Unwrap() http.ResponseWriter { return p.ResponseWriter }
