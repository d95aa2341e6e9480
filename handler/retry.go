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

	"github.com/oauth-session/caddy-oauth-session/session/keeper"
)

// retryAge is the least age of a token that is refreshed because an app calls
// it invalid. An app that calls every token invalid must not cause a refresh
// for each request.
const minRetryAge = 10 * time.Second

// relayWithRetry relays a request. If the app answers that the token is invalid, it
// refreshes the token and relays the request again, and the client never sees the
// first answer. A request with a body cannot be repeated: the client gets the first
// answer, and its next request has the new token.
func (h *Handler) relayWithRetry(p *relayState, r *http.Request, s *keeper.Session, next Next) error {
	probe := &probeWriter{ResponseWriter: &p.guard, before: p.guard.Header().Clone()}
	probe.hold = func() bool { return hasNoBody(r) && time.Since(s.TokenObtained) >= minRetryAge }
	secret := p.guard.secret
	err := h.relayOnce(probe, r, &p.savedHeaders, s, next)
	if !probe.invalidToken || time.Since(s.TokenObtained) < minRetryAge {
		return err
	}
	if !probe.held {
		// The client has the answer. Refresh in the background for its next request.
		ctx := context.WithoutCancel(r.Context())
		go func() { _, _ = h.Keeper.FreshOtherThan(ctx, secret, s.AccessToken) }()
		return err
	}
	fresh, freshErr := h.Keeper.FreshOtherThan(r.Context(), secret, s.AccessToken)
	if freshErr != nil {
		// Without a new token the app's own answer is the best one.
		_, _ = probe.release()
		return err
	}
	probe.discard()
	return h.relayOnce(&p.guard, r, new(savedHeaders), fresh, next)
}

func hasNoBody(r *http.Request) bool {
	return (r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0) && !isWebSocket(r)
}

// saysInvalidToken reads the challenge of RFC 6750, section 3, wherever it
// stands among others.
func isInvalidTokenAnswer(status int, header http.Header) bool {
	if status != http.StatusUnauthorized {
		return false
	}
	for _, line := range header.Values("WWW-Authenticate") {
		line = strings.ToLower(line)
		if bearer := strings.Index(line, "bearer"); bearer >= 0 && strings.Contains(line[bearer:], "invalid_token") {
			return true
		}
	}
	return false
}

// maxRefusedBody bounds what is kept of an answer that may still have to be
// shown. A longer one is not refused after all.
const maxHeldBody = 64 << 10

// probeWriter looks at the status of an answer before it lets it pass. What it
// refuses it keeps, up to a bound; everything else passes untouched. Handlers
// get the client's own header map: they may hold on to it for trailers.
type probeWriter struct {
	http.ResponseWriter
	before http.Header // what was set before the answer
	hold   func() bool

	passed       bool
	invalidToken bool // the answer said so
	held         bool
	status       int
	body         []byte
}

func (p *probeWriter) WriteHeader(status int) {
	switch {
	case p.held:
		return
	case p.passed || status < http.StatusOK && status != http.StatusSwitchingProtocols:
		p.ResponseWriter.WriteHeader(status)
		return
	}
	p.status = status
	p.invalidToken = isInvalidTokenAnswer(status, p.Header())
	if p.invalidToken && p.hold() {
		p.held = true
		return
	}
	p.passed = true
	p.ResponseWriter.WriteHeader(status)
}

// forget takes back what a refused answer has set.
func (p *probeWriter) discard() {
	header := p.Header()
	clear(header)
	maps.Copy(header, p.before)
}

// pass lets a refused answer through after all.
func (p *probeWriter) release() (int, error) {
	p.held, p.passed = false, true
	p.ResponseWriter.WriteHeader(p.status)
	return p.ResponseWriter.Write(p.body)
}

func (p *probeWriter) Write(b []byte) (int, error) {
	if !p.passed && !p.held {
		p.WriteHeader(http.StatusOK)
	}
	if p.held {
		if len(p.body)+len(b) <= maxHeldBody {
			p.body = append(p.body, b...)
			return len(b), nil
		}
		if _, err := p.release(); err != nil {
			return 0, err
		}
	}
	return p.ResponseWriter.Write(b)
}

// ReadFrom keeps the fast path of the writer below.
func (p *probeWriter) ReadFrom(r io.Reader) (int64, error) {
	if !p.passed && !p.held {
		p.WriteHeader(http.StatusOK)
	}
	if p.held {
		return io.Copy(writerOnly{p}, r)
	}
	return io.Copy(p.ResponseWriter, r)
}

type writerOnly struct{ io.Writer }

// FlushError sends nothing of an answer that does not pass.
func (p *probeWriter) FlushError() error {
	if p.held {
		return nil
	}
	if !p.passed {
		p.WriteHeader(http.StatusOK)
	}
	if p.held {
		return nil
	}
	return http.NewResponseController(p.ResponseWriter).Flush()
}

// Flush is FlushError for those who ask for an http.Flusher.
func (p *probeWriter) Flush() { _ = p.FlushError() }

// Hijack hands over the connection.
func (p *probeWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	p.passed = true
	return http.NewResponseController(p.ResponseWriter).Hijack()
}

// Unwrap lets an http.ResponseController set deadlines.
func (p *probeWriter) Unwrap() http.ResponseWriter { return p.ResponseWriter }
