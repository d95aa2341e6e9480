package browser

import (
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// Traffic counts the WebSockets and the answers of a tab.
type Traffic struct {
	mu      sync.Mutex
	sockets map[network.RequestID]*socket
	answers []answer
}

type socket struct {
	path         string
	open, opened bool
}

type answer struct {
	path   string
	status int
}

// Watch counts the traffic from now on.
func (p *Page) Watch(t testing.TB) *Traffic {
	t.Helper()
	traffic := &Traffic{sockets: map[network.RequestID]*socket{}}
	if err := chromedp.Listen(p.ctx, traffic.record); err != nil {
		t.Fatalf("listening to the browser: %v", err)
	}
	return traffic
}

func (tr *Traffic) record(event any) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	switch e := event.(type) {
	case *network.EventWebSocketCreated:
		tr.sockets[e.RequestID] = &socket{path: pathOf(e.URL)}
	case *network.EventWebSocketHandshakeResponseReceived:
		if s := tr.sockets[e.RequestID]; s != nil && e.Response.Status == http.StatusSwitchingProtocols {
			s.open, s.opened = true, true
		}
	case *network.EventWebSocketFrameError:
		// Chromium reports a handshake with another status than 101 in words only.
		if s := tr.sockets[e.RequestID]; s != nil && strings.HasPrefix(e.ErrorMessage, "HTTP Authentication failed") {
			tr.answers = append(tr.answers, answer{s.path, http.StatusUnauthorized})
		}
	case *network.EventWebSocketClosed:
		if s := tr.sockets[e.RequestID]; s != nil {
			s.open = false
		}
	case *network.EventResponseReceived:
		tr.answers = append(tr.answers, answer{pathOf(e.Response.URL), int(e.Response.Status)})
	case *page.EventFrameNavigated:
		// The former page took its WebSockets along, without an event.
		if e.Frame.ParentID == "" {
			for _, s := range tr.sockets {
				s.open = false
			}
		}
	}
}

func pathOf(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		return rawURL
	}
	return u.Path
}

// Open returns the number of open WebSockets whose path contains the text.
func (tr *Traffic) Open(path string) int {
	return tr.count(path, func(s *socket) bool { return s.open })
}

// Opened returns the number of WebSockets whose path contains the text, with those that have ended.
func (tr *Traffic) Opened(path string) int {
	return tr.count(path, func(s *socket) bool { return s.opened })
}

func (tr *Traffic) count(path string, counts func(*socket) bool) int {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	n := 0
	for _, s := range tr.sockets {
		if counts(s) && strings.Contains(s.path, path) {
			n++
		}
	}
	return n
}

// Answers returns the number of answers with the status to requests whose path contains the text, with those to handshakes
// of WebSockets.
func (tr *Traffic) Answers(path string, status int) int {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	n := 0
	for _, a := range tr.answers {
		if a.status == status && strings.Contains(a.path, path) {
			n++
		}
	}
	return n
}
