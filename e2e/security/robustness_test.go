package security

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

func encodeSegment(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// TestS124ReloadLosesNothing: reloads under load lose no session and no refresh, and leave
// no open files behind.
func TestS124ReloadLosesNothing(t *testing.T) {
	w := shared(t)
	in := w.instances[0]
	announceLifetimes(w.idp, 2, 2) // two seconds, so that refreshes run all the time
	const users = 6
	var browsers []*browser
	for range users {
		b := w.browser()
		b.Reconnect = true
		b.login(t, "/")
		browsers = append(browsers, b)
	}
	before := w.idp.Stats()
	files := in.metric(t, "process_open_fds")
	stop := make(chan struct{})
	var running sync.WaitGroup
	for i, b := range browsers {
		running.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				resp, err := b.Fetch(t.Context(), http.MethodGet, w.site+"/load", "")
				if err != nil || resp.Status != http.StatusOK {
					t.Errorf("user %d: got %v, %v, want 200", i, resp, err)
					return
				}
			}
		})
	}
	refreshes := func() int { return w.refreshes() - before.Grants[fakeas.GrantRefresh] }
	for i := 0; i < amount(20, 100) || refreshes() < 2*users; i++ {
		if err := in.Reload(t, in.config); err != nil || t.Failed() {
			t.Errorf("reload %d: %v", i, err)
			break
		}
	}
	close(stop)
	running.Wait()
	for _, b := range browsers {
		b.checkSession(t)
	}
	after := w.idp.Stats()
	if after.Reuses > before.Reuses || len(after.RedeemedTwice) > 0 || after.MaxConcurrentRefreshes() > 1 {
		t.Errorf("%d reuses, %d redeemed twice, %d refreshes of a session at once",
			after.Reuses-before.Reuses, len(after.RedeemedTwice), after.MaxConcurrentRefreshes())
	}
	w.closeIdleConnections()
	eventually(t, "end of the files of former configurations", func() bool { return in.metric(t, "process_open_fds") < files+50 })
}

// closeIdleConnections closes the idle connections of all browsers.
func (w *world) closeIdleConnections() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, tr := range w.transports {
		tr.CloseIdleConnections()
	}
}

// A requestGenerator makes random requests from known values, real cookies and damaged
// copies of both.
type requestGenerator struct {
	*rand.Rand
	values []string // building blocks of requests
	// cookies are real cookies, name=value. They are secrets, so they are sent only in
	// Cookie headers.
	cookies []string
	w       *world
}

// TestS125RandomRequestsAreHarmless: random requests to every endpoint cause no 5xx and no
// memory growth. The inspection at the end looks for panics and goroutines.
func TestS125RandomRequestsAreHarmless(t *testing.T) {
	w := shared(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	b := w.browser()
	started := b.start(t, "/deep")
	b.login(t, "/")
	cookies := append(b.logins(), sessionCookie+"="+b.session())
	values := []string{
		sessionCookie + "=x", loginCookie + "x=y", started.Query().Get("state"), "CODE_x", w.idp.URL, w.site,
		"", "/", "//evil.test", "%", "%zz", "%00", "\x00", "\xff\xfe", "é", strings.Repeat("A", 5000), strings.Repeat("..", 200), "..", "true", "0", "-1",
		"{env.HOME}", "{http.request.host}", "eyJhbGciOiJub25lIn0.e30.", "a.b.c", "application/x-www-form-urlencoded", "navigate", "document",
		"same-origin", "cross-site", "none", "login", "text/html", "application/json", "websocket", "Upgrade", `"`, ";", ",", "=", "&", "\t",
	}
	memory := w.instances[0].metric(t, "process_resident_memory_bytes")
	const workers = 4
	var mu sync.Mutex
	answers := map[int]int{}
	var running sync.WaitGroup
	for worker := range uint64(workers) {
		running.Go(func() {
			m := &requestGenerator{rand.New(rand.NewPCG(seed, worker)), values, cookies, w}
			for n := range amount(8000, 120_000) / workers {
				request := m.request()
				resp := w.raw(t, request)
				mu.Lock()
				answers[resp.Status]++
				mu.Unlock()
				if resp.Status >= 500 {
					t.Errorf("request %d of worker %d with seed %d: got %d: %q", n, worker, seed, resp.Status, request)
					return
				}
			}
		})
	}
	running.Wait()
	t.Logf("answers by status: %v", answers)
	if answers[http.StatusOK] == 0 || answers[http.StatusFound] == 0 || answers[http.StatusUnauthorized] == 0 {
		t.Error("the requests did not reach most of the site")
	}
	if grown := w.instances[0].metric(t, "process_resident_memory_bytes") - memory; grown > 64<<20 {
		t.Errorf("memory grew by %.0f MiB, want at most 64", grown/(1<<20))
	}
}

func (m *requestGenerator) pick(from ...string) string { return from[m.IntN(len(from))] }

// value returns one of the known values, sometimes damaged.
func (m *requestGenerator) value() string {
	v := m.pick(m.values...)
	for range m.IntN(3) {
		if len(v) == 0 {
			break
		}
		i := m.IntN(len(v))
		switch m.IntN(4) {
		case 0:
			v = v[:i] + string(rune(m.IntN(256))) + v[i+1:]
		case 1:
			v = v[:i]
		case 2:
			v += m.pick(m.values...)
		case 3:
			v = v[i:]
		}
	}
	return v
}

// field returns a value that is valid in a header line.
func (m *requestGenerator) field() string {
	return strings.NewReplacer("\r", "", "\n", "", "\x00", "").Replace(m.value())
}

// cookie returns a real cookie, sometimes damaged.
func (m *requestGenerator) cookie() string {
	c := m.pick(m.cookies...)
	i := m.IntN(len(c)-len(sessionCookie)-1) + len(sessionCookie) + 1
	switch m.IntN(5) {
	case 0:
		return c[:i] + m.pick("A", "_", "0") + c[i+1:]
	case 1:
		return c[:i]
	case 2:
		return c + m.pick("A", "=", "%3D", "; ", ";a", "; "+sessionCookie+"=x")
	}
	return c
}

func (m *requestGenerator) query(n int) string {
	var pairs []string
	for range n {
		name := m.pick("code", "state", "iss", "error", "error_description", "return_to", "prompt", "login_hint", "logout_token", "x", "session_state")
		value := m.value()
		if m.IntN(4) > 0 {
			value = url.QueryEscape(value)
		}
		pairs = append(pairs, name+"="+value)
	}
	return strings.Join(pairs, "&")
}

func (m *requestGenerator) request() string {
	target := m.pick(login, callback, logout, logoutCallback, sessionInfo, refresh, backchannel, prefix, prefix+"/", "/", "/x", "/static/x")
	if m.IntN(10) == 0 {
		target += m.pick("/", "%2f", ";x", "/..", "%00", "//")
	}
	if m.IntN(3) > 0 {
		// Caddy itself refuses characters that a URL cannot contain.
		target += "?" + strings.Map(func(c rune) rune {
			if c <= ' ' || c == 0x7f {
				return '+'
			}
			return c
		}, m.query(1+m.IntN(4)))
	}
	method := m.pick("GET", "GET", "GET", "POST", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "get", "PROPFIND")
	lines := []string{method + " " + target + " HTTP/1.1", "Host: " + m.w.host, "Connection: close"}
	if m.IntN(2) == 0 {
		lines = append(lines, "Cookie: "+m.cookie())
	}
	for range m.IntN(3) {
		cookie := m.field()
		if m.IntN(2) == 0 {
			cookie = m.pick(sessionCookie, loginCookie+"x", sessionCookie+" ", "__host-oauth_session", "a") + "=" + cookie
		}
		lines = append(lines, "Cookie: "+cookie)
	}
	switch m.IntN(3) {
	case 0:
		lines = append(lines, navigationHeaders...)
	case 1:
		lines = append(lines, scriptHeaders...)
	}
	for range m.IntN(4) {
		name := m.pick("Accept", "Origin", "Referer", "Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest", "Sec-Purpose", "Authorization",
			"X-Requested-With", "X-Forwarded-Host", "X-Forwarded-Proto", "Forwarded", "Early-Data", "Upgrade", "User-Agent", "Cookie2", "X_User")
		lines = append(lines, name+": "+m.field())
	}
	body := ""
	if method == http.MethodPost || method == http.MethodPut {
		body = m.query(m.IntN(4))
		lines = append(lines, "Content-Type: "+m.pick("application/x-www-form-urlencoded", "application/json", "text/plain", m.field()),
			fmt.Sprintf("Content-Length: %d", len(body)))
	}
	return strings.Join(lines, "\r\n") + "\r\n\r\n" + body
}
