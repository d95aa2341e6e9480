package security

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// TestS100EndpointsAreHTTPSOrLoopback: the site uses an endpoint from the metadata only if
// its URL is https, or http to a loopback host. A URL such as https://localhost:1/ is
// valid, but fails to connect.
func TestS100EndpointsAreHTTPSOrLoopback(t *testing.T) {
	w := shared(t)
	urls := []string{
		"http://idp.example.test/x", "file:///etc/passwd", "ftp://idp.example.test/x", "https://u:pw@idp.example.test/x",
		"https://169.254.169.254/latest/meta-data", "https://[fe80::1]/x", "https://0.0.0.0/x", "//idp.example.test/x",
		"javascript:alert(1)", "https://idp.example.test/x#f", "http://127.0.0.1.example.test/x", "https://localhost:1/",
	}
	type endpoint struct {
		*variant
		member, url string
	}
	var all []endpoint
	for i, bad := range urls {
		members := []string{"token_endpoint"}
		if i < 2 || bad == "javascript:alert(1)" {
			members = []string{"token_endpoint", "authorization_endpoint", "jwks_uri", "userinfo_endpoint"}
		}
		for _, member := range members {
			idp := fakeas.Start(t, fakeas.Options{})
			idp.Set(func(k *fakeas.Knobs) {
				k.SigningAlg = "ES256"
				k.Metadata.Set = map[string]any{member: bad}
			})
			all = append(all, endpoint{&variant{name: fmt.Sprintf("e%d-%s", i, strings.ReplaceAll(member, "_", "-")), options: "userinfo", idp: idp}, member, bad})
		}
	}
	var variants []*variant
	for _, e := range all {
		variants = append(variants, e.variant)
	}
	w.addVariants(t, variants...)
	for _, e := range all {
		t.Run(e.member+" "+e.url, func(t *testing.T) {
			b := w.browser()
			page := e.signIn(t, b, "u")
			checkNoLogin(t, page, e.session(b), http.StatusBadGateway, http.StatusServiceUnavailable)
			w.checkGenericPage(t, page.Body)
			if page.URL.Host != strings.TrimPrefix(e.url, "https://") && !strings.HasPrefix(e.variant.url, "https://"+page.URL.Hostname()) {
				t.Errorf("the browser ended at %s", page.URL.Host)
			}
		})
	}
	log := w.instances[0].Log(t)
	for _, member := range []string{"token_endpoint", "authorization_endpoint", "jwks_uri", "userinfo_endpoint"} {
		if !strings.Contains(log, member+" in the server's metadata: must be https") {
			t.Errorf("the log does not name %s", member)
		}
	}
	if strings.Contains(log, "u:pw@") {
		t.Error("the log shows the password of a URL")
	}
}

// TestS101IssuerIsComparedExactly: metadata with any other issuer than the configured one
// is not used. The site fetches it again after growing pauses.
func TestS101IssuerIsComparedExactly(t *testing.T) {
	w := shared(t)
	var all []*variant
	add := func(name string, edit func(k *fakeas.Knobs, url string)) {
		v := &variant{name: "issuer-" + name, idp: fakeas.Start(t, fakeas.Options{})}
		v.idp.Set(func(k *fakeas.Knobs) { k.SigningAlg = "ES256"; edit(k, v.idp.URL) })
		all = append(all, v)
	}
	add("slash", func(k *fakeas.Knobs, url string) { k.Issuer = url + "/" })
	add("case", func(k *fakeas.Knobs, url string) { k.Issuer = strings.ToUpper(url[:4]) + url[4:] })
	add("host", func(k *fakeas.Knobs, url string) { k.Issuer = strings.Replace(url, "127.0.0.1", "localhost", 1) })
	add("space", func(k *fakeas.Knobs, url string) { k.Issuer = url + " " })
	add("none", func(k *fakeas.Knobs, _ string) { k.Metadata.Omit = []string{"issuer"} })
	add("list", func(k *fakeas.Knobs, url string) { k.Metadata.Set = map[string]any{"issuer": []string{url}} })
	w.addVariants(t, all...)
	for _, v := range all {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			b := w.browser()
			for range 10 {
				resp := b.nav(t, v.url+"/x")
				if resp.Status != http.StatusBadGateway || resp.Location() != nil {
					t.Fatalf("got %v, want 502", resp)
				}
				w.checkGenericPage(t, resp.Body)
			}
			pause := time.Second
			log := v.idp.Log(fakeas.EndpointDiscovery)
			for i := 1; i < len(log); i++ {
				if got := log[i].Time.Sub(log[i-1].Time); got < pause {
					t.Errorf("pause before fetching the metadata again: got %v, want at least %v", got, pause)
				}
				pause *= 2
			}
			if stats := v.idp.Stats(); stats.Requests[fakeas.EndpointToken]+stats.Requests[fakeas.EndpointJWKS] > 0 {
				t.Errorf("the site used endpoints of the metadata: %v", stats.Requests)
			}
			v.idp.Set(func(k *fakeas.Knobs) { k.Issuer, k.Metadata = "", fakeas.Edit{} })
			eventually(t, "login with valid metadata", func() bool { return b.nav(t, v.url+"/x").Status == http.StatusFound })
		})
	}
}

// startStallingServer runs a server that accepts connections, sends a reply, then one
// space at every interval, and never ends.
func startStallingServer(t *testing.T, say string, dripEvery time.Duration) (addr string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // closed
			}
			running.Go(func() {
				defer conn.Close()
				defer context.AfterFunc(ctx, func() { conn.Close() })()
				_, _ = conn.Read(make([]byte, 4<<10))
				_, err := conn.Write([]byte(say))
				for tick := time.NewTicker(dripEvery); err == nil; {
					select {
					case <-tick.C:
						_, err = conn.Write([]byte(" "))
					case <-ctx.Done():
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		stop()
		listener.Close()
		running.Wait()
	})
	return listener.Addr().String()
}

// TestS104EveryCallEndsInTime: a login ends with an error although the authorization
// server stalls at any point (the documented limit is 10 s a call). Other sessions are
// served during that time.
func TestS104EveryCallEndsInTime(t *testing.T) {
	w := newWorld(t, plan{mostlyWaits: true})
	const head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
	silent := startStallingServer(t, "", time.Hour)
	all := []*variant{
		{name: "silent", issuer: "http://" + silent},
		{name: "no-handshake", issuer: "https://" + silent},
		{name: "only-headers", issuer: "http://" + startStallingServer(t, head+"{", time.Hour)},
		{name: "dripping", issuer: "http://" + startStallingServer(t, head+"{", 5*time.Second)},
		{name: "token-dripping"},
		{name: "token-silent"},
	}
	w.addVariants(t, all...)
	all[4].idp.Fail(fakeas.Fault{AfterCommit: true, Delivery: fakeas.DeliverDrip, Interval: 5 * time.Second, Times: -1})
	all[5].idp.Fail(fakeas.Fault{Delay: time.Hour, Times: -1})
	loggedIn := w.browser()
	loggedIn.login(t, "/")
	// The limit is far longer than a login may take, and far shorter than the servers
	// stall.
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	n := amount(20, 200) // logins at each server
	var running sync.WaitGroup
	for _, v := range all {
		crowd := w.newBrowser(w.instances[0], true)
		for range n {
			running.Go(func() {
				b := &browser{Client: crowd.Twin(), w: w}
				b.use(w.instances[0], true)
				page, err := b.Visit(ctx, v.url+"/x")
				if err != nil {
					t.Errorf("%s: %v", v.name, err)
					return
				}
				checkNoLogin(t, page, v.session(b), http.StatusServiceUnavailable)
			})
		}
	}
	done := make(chan struct{})
	go func() {
		running.Wait()
		close(done)
	}()
	every := time.NewTicker(50 * time.Millisecond)
	defer every.Stop()
	for served := 0; ; {
		select {
		case <-done:
			if served == 0 {
				t.Error("no other request was served during the stall")
			}
			return
		case <-every.C:
			loggedIn.checkSession(t)
			served++
		}
	}
}

// TestS106StrangeTokenAnswersAreRefused: a malformed answer of the token endpoint logs no
// user in. The server does not use OpenID Connect, so the site has no ID token to check
// the access token with. A byte order mark is accepted, as some servers send one.
func TestS106StrangeTokenAnswersAreRefused(t *testing.T) {
	w := shared(t)
	v := &variant{
		name: "strange", issuer: "-",
		options: "scope read\n\tauthorization_endpoint {IDP}/authorize\n\ttoken_endpoint {IDP}/token",
	}
	w.addVariants(t, v)
	v.login(t, w.browser(), "u")
	requests := len(v.app.Requests())
	for name, fault := range map[string]fakeas.Fault{
		"HTML":             fakeas.Answer(http.StatusOK, "text/html", "<html>"),
		"error with 200":   fakeas.Answer(http.StatusOK, "application/json", `{"error":"invalid_grant"}`),
		"error and token":  fakeas.Answer(http.StatusOK, "application/json", `{"error":"server_error","access_token":"AT_x","token_type":"Bearer"}`),
		"empty":            fakeas.Answer(http.StatusOK, "application/json", ""),
		"204":              fakeas.Answer(http.StatusNoContent, "application/json", ""),
		"list":             fakeas.Answer(http.StatusOK, "application/json", `[{"access_token":"AT_x","token_type":"Bearer"}]`),
		"text":             fakeas.Answer(http.StatusOK, "application/json", `"AT_x"`),
		"repeated form":    fakeas.Answer(http.StatusOK, "application/x-www-form-urlencoded", "access_token=AT_x&access_token=AT_y&token_type=bearer"),
		"form as JSON":     fakeas.Answer(http.StatusOK, "application/json", "access_token=AT_x&token_type=bearer"),
		"redirect":         {Status: http.StatusTemporaryRedirect, Header: map[string]string{"Location": w.attacker.URL}, Times: -1},
		"trailing garbage": {AfterCommit: true, Suffix: "x"},
		"second object":    {AfterCommit: true, Suffix: "{}"},
		"cut":              {AfterCommit: true, Delivery: fakeas.DeliverCut},
		"endless":          {AfterCommit: true, Delivery: fakeas.DeliverEndless},
		"gzip":             {AfterCommit: true, Gzip: true},
	} {
		t.Run(name, func(t *testing.T) {
			v.idp.Fail(fault.Repeat(-1))
			defer v.idp.ClearFaults()
			b := w.browser()
			page := v.signIn(t, b, "u")
			checkNoLogin(t, page, v.session(b), http.StatusBadGateway, http.StatusServiceUnavailable)
			w.checkGenericPage(t, page.Body)
		})
	}
	for name, token := range map[string]any{
		"space": "AT_a b", "line": "AT_a\r\nX-Evil: 1", "tab": "AT_a\tb", "NUL": "AT_a\x00", "not ASCII": "AT_ä", "DEL": "AT_a\x7f",
		"only space": " ", "1 MiB": strings.Repeat("A", 1<<20), "65 KiB": strings.Repeat("A", 65<<10), "number": 7, "list": []string{"AT_x"},
		"lone surrogate": json.RawMessage(`"AT_\ud800"`),
	} {
		t.Run("access_token "+name, func(t *testing.T) {
			v.idp.Set(func(k *fakeas.Knobs) { k.LoginAnswer.Set = map[string]any{"access_token": token} })
			defer v.idp.Set(func(k *fakeas.Knobs) { k.LoginAnswer.Set = nil })
			b := w.browser()
			checkNoLogin(t, v.signIn(t, b, "u"), v.session(b), http.StatusBadGateway)
		})
	}
	if got := v.app.Requests()[requests:]; len(got) > 0 {
		t.Errorf("the app got %d requests, want none; the first with %q", len(got), got[0].Headers)
	}
	v.idp.Fail(fakeas.BOM())
	v.login(t, w.browser(), "u")
}

// TestS107RequestsChooseNoConnection: no URL in a request or in a token makes the site
// connect to it.
func TestS107RequestsChooseNoConnection(t *testing.T) {
	w := shared(t)
	attacker := w.attacker.URL
	b := w.browser()
	b.login(t, "/")
	authority := strings.TrimPrefix(attacker, "http://")
	lines := append(slices.Clone(navigationHeaders),
		"X-Forwarded-Host: "+authority, "X-Forwarded-Proto: http", "Forwarded: host="+authority+";proto=http", "X-Original-URL: "+attacker,
		"X-Rewrite-URL: "+attacker, "X-Forwarded-Server: "+authority, "Referer: "+attacker, "Origin: "+attacker, "X-Host: "+authority)
	q := url.Values{}
	for _, name := range []string{
		"iss", "jku", "x5u", "jwks_uri", "request_uri", "request", "target_link_uri", "redirect_uri", "return_to", "client_id",
		"logo_uri", "sector_identifier_uri", "post_logout_redirect_uri", "id_token_hint", "token_endpoint", "resource", "code", "state",
	} {
		q.Set(name, attacker)
	}
	for _, path := range []string{"/x", login, callback, logout, logoutCallback, sessionInfo, refresh, backchannel} {
		for _, each := range []*browser{b, w.browser()} {
			for _, method := range []string{http.MethodGet, http.MethodPost} {
				each.send(t, method, path+"?"+q.Encode(), q.Encode(), append(slices.Clone(lines), "Content-Type: application/x-www-form-urlencoded")...)
			}
		}
	}
	// Key URLs in the headers of tokens are ignored.
	header := fakeas.Edit{Set: map[string]any{"jku": attacker, "x5u": attacker}}
	w.idp.Set(func(k *fakeas.Knobs) { k.LoginIDToken = fakeas.TokenEdit{Header: header} })
	w.browser().login(t, "/")
	w.idp.Set(func(k *fakeas.Knobs) {
		k.LoginIDToken = fakeas.TokenEdit{Defect: fakeas.DefectKeyID, Header: header}
	})
	if page, err := w.browser().Visit(t.Context(), w.site+"/x"); err != nil || page.Status != http.StatusBadGateway {
		t.Errorf("ID token with a foreign jku: got %v, %v, want 502", page, err)
	}
	token, err := w.idp.LogoutToken(fakeas.Logout{ClientID: clientID, Subject: "unknown", Edit: fakeas.TokenEdit{Defect: fakeas.DefectKeyID, Header: header}})
	if err != nil {
		t.Fatal(err)
	}
	w.browser().send(t, http.MethodPost, backchannel, url.Values{"logout_token": {token}}.Encode(), "Content-Type: application/x-www-form-urlencoded")
	if contacts, _ := w.attacker.received(); contacts > 0 {
		t.Errorf("the attacker's server got %d connections, want none", contacts)
	}
}
