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

// minRetryAge is the least age of a token that is refreshed because an app calls it
// invalid. It limits the refreshes that an app with a wrong configuration can
// cause.
const minRetryAge = 10 * time.Second

// relayWithRetry relays a request. If the app answers that the token is invalid, it
// refreshes the token and relays the request again, and the client never sees the
// first answer. A request with a body cannot be repeated: the client gets the first
// answer, and its next request has the new token.
func (h *Handler) relayWithRetry(p *relayState, r *http.Request, c *cookies, s *keeper.Session, next Next) error {
	probe := &probeWriter{ResponseWriter: &p.guard, before: p.guard.Header().Clone()}
	probe.hold = func() bool { return hasNoBody(r) && time.Since(s.TokenObtained) >= minRetryAge }
	secret, source := p.guard.secret, h.sessions(c)
	err := h.relayOnce(probe, r, &p.savedHeaders, s, next)
	if !probe.invalidToken || time.Since(s.TokenObtained) < minRetryAge {
		return err
	}
	if !probe.held {
		// The client has the answer. Refresh in the background for its next request.
		ctx := context.WithoutCancel(r.Context())
		go func() { _, _ = source.FreshOtherThan(ctx, secret, s.AccessToken) }()
		return err
	}
	fresh, freshErr := source.FreshOtherThan(r.Context(), secret, s.AccessToken)
	if freshErr != nil {
		// Without a new token the app's own answer is the best one.
		_, _ = probe.release()
		return err
	}
	probe.discard()
	// The handlers behind may have changed the Cookie header of the first request.
	removeOwnCookies(r, c)
	p.guard.session = fresh
	return h.relayOnce(&p.guard, r, new(savedHeaders), fresh, next)
}

// hasNoBody reports whether a request can be sent a second time: it has no body,
// and does not switch protocols.
func hasNoBody(r *http.Request) bool {
	return (r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0) && !isWebSocket(r)
}

// isInvalidTokenAnswer reports whether an answer has the challenge of RFC 6750,
// section 3, with error="invalid_token". Other challenges may stand before or
// behind it.
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

// maxHeldBody bounds the body of an answer that is held back. A longer answer is
// passed to the client.
const maxHeldBody = 64 << 10

// probeWriter decides by status and header whether to hold an answer back. It
// stores an answer that it holds, up to maxHeldBody, and passes any other on
// unchanged. The handler gets the header map of the underlying writer, and not a
// copy, because it may keep the map to set trailers later.
type probeWriter struct {
	http.ResponseWriter
	before http.Header // the header before the answer
	hold   func() bool

	passed       bool
	invalidToken bool // the answer says that the token is invalid
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

// discard removes a held answer, and restores the header from before it.
func (p *probeWriter) discard() {
	header := p.Header()
	clear(header)
	maps.Copy(header, p.before)
}

// release sends a held answer to the client.
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

// ReadFrom implements io.ReaderFrom, with the fast path of the underlying writer.
func (p *probeWriter) ReadFrom(r io.Reader) (int64, error) {
	if !p.passed && !p.held {
		p.WriteHeader(http.StatusOK)
	}
	if p.held {
		return io.Copy(writerOnly{p}, r)
	}
	return io.Copy(p.ResponseWriter, r)
}

// writerOnly hides ReadFrom from io.Copy, which would otherwise call it endlessly.
type writerOnly struct{ io.Writer }

// FlushError implements the method that http.ResponseController calls. It sends
// nothing of an answer that is held back.
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

// Flush implements http.Flusher.
func (p *probeWriter) Flush() { _ = p.FlushError() }

// Hijack implements http.Hijacker.
func (p *probeWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	p.passed = true
	return http.NewResponseController(p.ResponseWriter).Hijack()
}

// Unwrap lets http.ResponseController set deadlines.
func (p *probeWriter) Unwrap() http.ResponseWriter { return p.ResponseWriter }
