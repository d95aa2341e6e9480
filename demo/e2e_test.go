package main

import (
	"bufio"
	"encoding/json"
	"html"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestDemo uses the demo like a person, with the real Caddy: the executable in the environment variable CADDY, or else one
// built from the checkout. Most of its time is the lifetime of an access token.
func TestDemo(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the real Caddy")
	}
	// The demo must also work with other ports than those in the Caddyfile.
	for _, preferred := range []int{8080, 8081, 9980} {
		if ln, err := net.Listen("tcp", loopback(preferred)); err == nil { // an error means that the port is in use already
			defer ln.Close()
		}
	}
	dir, l := t.TempDir(), newLeash(t)
	d := startDemo(t, l, dir)
	b := newBrowser()

	page := b.login(t, d.site+"/?q=1", d.user, d.password)
	shown := shownToken.FindStringSubmatch(page.body)
	if shown == nil || page.url != d.site+"/?q=1" {
		t.Fatalf("login: got page %s, want the app's page with a token: %s", page.url, page.body)
	}
	token := decode(html.UnescapeString(shown[1]))
	if token == nil {
		t.Fatalf("got token %s, want a JWT", shown[1])
	}
	if lifetime := token.Expires - token.IssuedAt; lifetime <= 0 || lifetime > 30 {
		t.Errorf("got a token lifetime of %d s, want 1 to 30", lifetime)
	}
	first := b.received(t, d.site)
	if len(first.Cookies) > 0 || first.SessionCookie {
		t.Errorf("the app got the cookies %v, want none", first.Cookies)
	}
	if !hasValue(first.User, theUser.ID) || !hasValue(first.User, theUser.Email) {
		t.Errorf("the app got the user headers %v, want the ID and the e-mail address", first.User)
	}

	next := b.awaitNewToken(t, d.site, html.UnescapeString(shown[1]))
	if next.JWT == nil || next.JWT.Expires <= token.Expires {
		t.Errorf("got new token %+v, want one that expires after %d", next, token.Expires)
	}

	session := b.fetch(t, http.MethodGet, d.site+"/oauth2/session")
	if session.status != http.StatusOK || !strings.Contains(session.body, `"authenticated":true`) {
		t.Errorf("session endpoint: got %d %s, want an authenticated session", session.status, session.body)
	}
	page = b.submit(t, d.site+"/oauth2/logout", nil)
	if page.status != http.StatusOK || page.url != d.site+"/oauth2/logout/callback" && !strings.HasPrefix(page.url, d.site+"/oauth2/logout/callback?") {
		t.Errorf("signing out: got page %s with %d %s, want the logout callback", page.url, page.status, page.body)
	}
	if after := b.fetch(t, http.MethodGet, d.site+"/received"); after.status != http.StatusUnauthorized {
		t.Errorf("after signing out: got %d %s, want 401", after.status, after.body)
	}

	d.interrupt(t)
	l.awaitEnd(t)
	wantEmpty(t, dir)
	for _, address := range []string{d.site, d.issuer, d.app} {
		host := strings.TrimPrefix(address, "http://")
		if conn, err := net.Dial("tcp", host); err == nil {
			conn.Close()
			t.Errorf("after the demo: %s accepts connections", address)
		}
	}
}

var shownToken = regexp.MustCompile(`<pre id="token"[^>]*>([^<]+)</pre>`)

func hasValue(fields []field, value string) bool {
	for _, f := range fields {
		if f.Value == value {
			return true
		}
	}
	return false
}

// runningDemo is the running program with the addresses that it has printed.
type runningDemo struct {
	cmd                               *exec.Cmd
	outputEnd                         chan struct{} // closed at the end of its output
	site, user, password, issuer, app string
}

var announcement = regexp.MustCompile(`Open +(\S+)\nUser +(\S+)\nPassword +(\S+)\n\nThe login server is (\S+), the app (\S+)\.\n`)

func startDemo(t *testing.T, l leash, dir string) *runningDemo {
	t.Helper()
	program := filepath.Join(t.TempDir(), "demo")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("building the demo: %v\n%s", err, out)
	}
	d := &runningDemo{cmd: exec.Command(program), outputEnd: make(chan struct{})}
	d.cmd.Env = append(os.Environ(), "TMPDIR="+dir, "HOME="+dir, "CADDY="+leashedCaddy(t, l))
	d.cmd.Stderr = os.Stderr
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// The demo must not outlive a failed test.
	t.Cleanup(func() { d.cmd.Process.Signal(syscall.SIGTERM) })

	var output strings.Builder
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		output.WriteString(line)
		if m := announcement.FindStringSubmatch(output.String()); m != nil {
			d.site, d.user, d.password, d.issuer, d.app = m[1], m[2], m[3], m[4], m[5]
			break
		}
		if err != nil {
			t.Fatalf("the demo ended before its announcement: %v\n%s", err, output.String())
		}
	}
	go func() {
		defer close(d.outputEnd)
		io.Copy(io.Discard, lines)
	}()
	return d
}

// leashedCaddy returns a script that holds the leash and runs the real Caddy.
func leashedCaddy(t *testing.T, l leash) string {
	t.Helper()
	caddy := os.Getenv("CADDY")
	if caddy == "" {
		caddy = filepath.Join(t.TempDir(), "caddy")
		build := exec.Command("../xcaddy.build")
		build.Env = append(os.Environ(), "OUTPUT="+caddy)
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("building Caddy: %v\n%s", err, out)
		}
	}
	return l.script(t, filepath.Join(t.TempDir(), "caddy"), `exec '`+caddy+`' "$@"`)
}

// interrupt sends SIGINT, like Ctrl-C, and waits until the demo has ended.
func (d *runningDemo) interrupt(t *testing.T) {
	t.Helper()
	if err := d.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	<-d.outputEnd
	if err := d.cmd.Wait(); err != nil {
		t.Errorf("after SIGINT: got %v, want exit status 0", err)
	}
}

// browser has the browser features that the demo needs: cookies, forms and redirects.
type browser struct {
	http *http.Client
	jar  jar
}

type answer struct {
	url    string
	status int
	body   string
}

func newBrowser() *browser {
	j := jar{}
	return &browser{jar: j, http: &http.Client{Jar: j, Timeout: patience}}
}

// jar stores cookies by host and name. Like browsers, and unlike net/http/cookiejar, it sends Secure cookies to
// http://localhost.
type jar map[string]map[string]string

func (j jar) SetCookies(u *url.URL, cookies []*http.Cookie) {
	if j[u.Host] == nil {
		j[u.Host] = map[string]string{}
	}
	for _, c := range cookies {
		if c.MaxAge < 0 {
			delete(j[u.Host], c.Name)
		} else {
			j[u.Host][c.Name] = c.Value
		}
	}
}

func (j jar) Cookies(u *url.URL) (cookies []*http.Cookie) {
	for name, value := range j[u.Host] {
		cookies = append(cookies, &http.Cookie{Name: name, Value: value})
	}
	return cookies
}

var (
	formAction = regexp.MustCompile(`<form method="POST" action="([^"]*)"`)
	formID     = regexp.MustCompile(`<input type="hidden" name="id" value="([^"]*)"`)
)

// login opens the page, submits the form of the login server, and returns the page after it.
func (b *browser) login(t *testing.T, page, user, password string) answer {
	t.Helper()
	form := b.navigate(t, http.MethodGet, page, nil)
	action, id := formAction.FindStringSubmatch(form.body), formID.FindStringSubmatch(form.body)
	if action == nil || id == nil {
		t.Fatalf("login: got page %s, want a login form: %s", form.url, form.body)
	}
	base, err := url.Parse(form.url)
	if err != nil {
		t.Fatal(err)
	}
	target, err := base.Parse(html.UnescapeString(action[1]))
	if err != nil {
		t.Fatal(err)
	}
	return b.submit(t, target.String(), url.Values{"id": {html.UnescapeString(id[1])}, "username": {user}, "password": {password}})
}

// submit sends a form of a page of the same origin.
func (b *browser) submit(t *testing.T, target string, form url.Values) answer {
	t.Helper()
	return b.navigate(t, http.MethodPost, target, form)
}

func (b *browser) navigate(t *testing.T, method, target string, form url.Values) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, target, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Origin", req.URL.Scheme+"://"+req.URL.Host)
	}
	req.Header.Set("Accept", "text/html")
	req.Header.Set("Sec-Fetch-Mode", "navigate")
	req.Header.Set("Sec-Fetch-Dest", "document")
	return b.do(t, b.http, req)
}

// fetch sends a request like fetch() in the page. It follows no redirects.
func (b *browser) fetch(t *testing.T, method, target string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, target, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	req.Header.Set("Sec-Fetch-Mode", "cors")
	req.Header.Set("Sec-Fetch-Dest", "empty")
	client := *b.http
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return b.do(t, &client, req)
}

func (b *browser) do(t *testing.T, client *http.Client, req *http.Request) answer {
	t.Helper()
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.Request.URL.String(), resp.StatusCode, string(body)}
}

// received returns the app's description of the request. Another answer, such as a redirect, fails the test.
func (b *browser) received(t *testing.T, site string) received {
	t.Helper()
	a := b.fetch(t, http.MethodGet, site+"/received")
	var got received
	if a.status != http.StatusOK || json.Unmarshal([]byte(a.body), &got) != nil || got.Token == "" {
		t.Fatalf("got %d %s, want the app's answer", a.status, a.body)
	}
	return got
}

// awaitNewToken polls the app like its page until it gets another token than old.
func (b *browser) awaitNewToken(t *testing.T, site string, old string) received {
	t.Helper()
	poll := time.NewTicker(500 * time.Millisecond)
	defer poll.Stop()
	limit := time.After(patience)
	for {
		if got := b.received(t, site); got.Token != old {
			return got
		}
		select {
		case <-poll.C:
		case <-limit:
			t.Fatalf("got no new token within %v", patience)
		}
	}
}
