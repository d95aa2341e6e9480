package handler

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

func TestCookiesHaveTheConfiguredAttributes(t *testing.T) {
	for _, tt := range []struct {
		cookie         Cookie
		session, login string // attributes in addition to Path=/; HttpOnly; Secure
	}{
		{Cookie{}, sessionCookie + "| SameSite=Lax", "SameSite=Lax"},
		{Cookie{SameSite: "strict"}, sessionCookie + "| SameSite=Strict", "SameSite=Lax"},
		{Cookie{SameSite: "none"}, sessionCookie + "| SameSite=None", "SameSite=None"},
		{Cookie{SameSite: "none", Partitioned: true}, sessionCookie + "| SameSite=None; Partitioned", "SameSite=None; Partitioned"},
		{Cookie{Domain: "app.test"}, "__Secure-oauth_session| Domain=app.test; SameSite=Lax", "SameSite=Lax"},
		{Cookie{Name: "__Host-sid"}, "__Host-sid| SameSite=Lax", "SameSite=Lax"},
	} {
		t.Run(tt.session, func(t *testing.T) {
			g := newRig(t, plainOAuth, func(s *setup) { s.handler.Cookie = tt.cookie })
			b := g.browser()
			name, want, _ := strings.Cut(tt.session, "|")
			first := g.get("/", navigation...)
			loginLine := first.header["Set-Cookie"][0]
			if got := attributes(loginLine); got != sorted("HttpOnly; Max-Age=600; Path=/; Secure; "+tt.login) {
				t.Errorf("got login cookie with attributes %s, want those of the configuration", got)
			}
			if !strings.HasPrefix(loginLine, loginCookiePrefix) {
				t.Errorf("got login cookie %s, want the prefix of login cookies", loginLine)
			}
			callback := b.approve(b.start("/"))
			set := b.send(g.request("GET", callback, navigation...), true).header["Set-Cookie"][0]
			value := strings.TrimPrefix(strings.Split(set, ";")[0], name+"=")
			if got := attributes(set); len(value) != 43 || got != sorted("HttpOnly; Path=/; Secure; "+want) {
				t.Errorf("got session cookie %s with %d characters and attributes %s, want 43 and those of the configuration", name, len(value), got)
			}
			logout := b.fetch("POST", "/oauth2/logout").header["Set-Cookie"]
			cleared := 0
			for _, line := range logout {
				if strings.HasPrefix(line, name+"=;") {
					cleared++
					if got := attributes(line); got != sorted("HttpOnly; Max-Age=0; Path=/; Secure; "+want) {
						t.Errorf("got deletion with attributes %s, want those of the session cookie", got)
					}
				}
			}
			if cleared != 1 || len(b.jar.cookies) != 0 {
				t.Errorf("after the logout %q: got cookies %v, want none", logout, b.jar.cookies)
			}
		})
	}
}

func attributes(line string) string {
	_, rest, _ := strings.Cut(line, ";")
	return sorted(rest)
}

func sorted(list string) string {
	parts := strings.Split(strings.TrimSpace(list), ";")
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	slices.Sort(parts)
	return strings.Join(parts, "; ")
}

func TestCookieThatBrowsersWouldIgnoreIsRefused(t *testing.T) {
	for _, c := range []Cookie{
		{Name: "session"}, {Name: "__Secure-x"}, {Name: "__host-x"}, {Name: "__Host-x", Domain: "app.test"}, {Name: "__Host-a b"},
		{Name: "__Host-a;b"}, {Name: "__Host-a=b"}, {Name: "__Host-\r\n"}, {Name: "__Host-oauth_login_x"}, {Name: "__Host-é"},
		{SameSite: "Lax"}, {SameSite: "always"}, {Partitioned: true}, {Partitioned: true, SameSite: "lax"},
	} {
		if err := c.validate(); err == nil {
			t.Errorf("%+v: got no error, want one", c)
		}
	}
}

// TestOwnCookiesDoNotReachTheApp: the app's cookies keep their bytes and their
// order.
func TestOwnCookiesDoNotReachTheApp(t *testing.T) {
	g := newRig(t, plainOAuth, func(s *setup) { s.handler.Optional = func(*http.Request) bool { return true } })
	valid := sessionCookie + "=" + g.session("")
	login := loginCookiePrefix + "abc=xyz"
	for _, tt := range []struct{ lines, want []string }{
		{[]string{"a=1; " + valid + `; b="x y"; ` + login + "; c=%3D"}, []string{`a=1; b="x y"; c=%3D`}},
		{[]string{valid}, nil},
		{[]string{login}, nil},
		{[]string{valid + "; " + login}, nil},
		{[]string{valid + "; a=1"}, []string{"a=1"}},
		{[]string{"a=1; " + valid}, []string{"a=1"}},
		{[]string{"a=1;" + valid + ";b=2"}, []string{"a=1;b=2"}},
		{[]string{"a=1", valid, "b=2; " + login}, []string{"a=1", "b=2"}},
		{[]string{"a=1; a=2; " + valid + "; a=1"}, []string{"a=1; a=2; a=1"}},
		{[]string{`a="x; ` + valid + `; y"`}, []string{`a="x; y"`}},
		{[]string{"a=1;; ;b", "c; "}, []string{"a=1;; ;b", "c; "}},
		{[]string{sessionCookie}, nil},
		{[]string{sessionCookie + "=; a=1"}, []string{"a=1"}},
		{[]string{strings.Repeat(login+"; ", 50) + "a=1"}, []string{"a=1"}},
		{[]string{"x" + valid + "; a=" + valid}, []string{"x" + valid + "; a=" + valid}},
		{[]string{"=" + valid}, []string{"=" + valid}},
		{[]string{""}, []string{""}},
	} {
		r := g.request("GET", "/", script...)
		r.Header["Cookie"] = tt.lines
		a := g.do(r)
		if got := g.app.last()["Cookie"]; a.relayed != 1 || !slices.Equal(got, tt.want) {
			t.Errorf("of %q the app gets %q, want %q", tt.lines, got, tt.want)
		}
	}
}

func TestMalformedSessionCookieIsNoSession(t *testing.T) {
	g := newRig(t, plainOAuth)
	good := g.session("")
	many := strings.Repeat("x=1; ", 4000)
	values := []string{
		"", "%", `"` + good + `"`, "a=b", good + "=", good + "A", good[:42], " =" + good, good + "\t" + good, good + ", x", "\xff\xfe", "\u00e9",
		strings.Repeat("A", 43), strings.Repeat("A", 4<<10), strings.Repeat("A", 15<<10), strings.Repeat("A", 60<<10),
		strings.ToUpper(good), good[:21] + "\n" + good[21:], good[:42] + "\n",
	}
	lines := [][]string{
		{"; ; ;="}, {sessionCookie}, {sessionCookie + "_chunks=99999999"}, {many},
		// Look-alikes of the name.
		{"__host-oauth_session=" + good}, {"__HOST-OAUTH_SESSION=" + good}, {"\u2000" + sessionCookie + "=" + good}, {"\u0085" + sessionCookie + "=" + good},
		{"\u00a0" + sessionCookie + "=" + good}, {"=" + sessionCookie + "=" + good}, {sessionCookie + " =" + good}, {sessionCookie + "\t=" + good},
		{"x=" + sessionCookie + "=" + good}, {"x, " + sessionCookie + "=" + good},
		// Two valid sessions: neither is used.
		{sessionCookie + "=" + good + "; " + sessionCookie + "=" + g.session("")},
	}
	for _, v := range values {
		lines = append(lines, []string{sessionCookie + "=" + v})
	}
	for _, cookie := range lines {
		r := g.request("GET", "/", script...)
		r.Header["Cookie"] = cookie
		if a := g.do(r); a.status != 401 || a.relayed != 0 || a.header["Set-Cookie"] != nil {
			t.Errorf("%.90q: got status %d, want 401, cookies %q", cookie, a.status, a.header["Set-Cookie"])
		}
		r = g.request("GET", "/", navigation...)
		r.Header["Cookie"] = cookie
		wantNewLogin(t, g, g.do(r))
	}
	for _, cookie := range []string{
		// The only one of several cookies that has a session.
		sessionCookie + "=" + good + "; " + sessionCookie + "=" + good, sessionCookie + "=x; " + sessionCookie + "=" + good,
		sessionCookie + "; " + sessionCookie + "=" + good, sessionCookie + "=" + seal.NewSecret().Cookie() + "; " + sessionCookie + "=" + good,
		sessionCookie + "=" + good, "a=1;" + sessionCookie + "=" + good + " ;b=2", many + sessionCookie + "=" + good} {
		if a := g.get("/", append(script, "Cookie: "+cookie)...); a.status != 200 {
			t.Errorf("%.90q: got status %d, want 200", cookie, a.status)
		}
	}
}

// TestTamperedSessionCookieIsLikeNone for each altered character.
func TestTamperedSessionCookieIsLikeNone(t *testing.T) {
	g := newRig(t, plainOAuth)
	good := g.session("")
	want := g.get("/", script...)
	for i := range good {
		altered := []byte(good)
		if altered[i] = 'A'; good[i] == 'A' {
			altered[i] = 'B'
		}
		a := g.get("/", append(script, "Cookie: "+sessionCookie+"="+string(altered))...)
		if a.status != want.status || a.body != want.body || fmt.Sprint(a.header) != fmt.Sprint(want.header) {
			t.Errorf("character %d: got status %d, want %d, header %v, body %s", i, a.status, want.status, a.header, a.body)
		}
	}
}

// FuzzReadCookies: only a cookie with the right name gives a session, and the app
// never gets one of the module's cookies.
func FuzzReadCookies(f *testing.F) {
	g := newRig(f, plainOAuth)
	secret := seal.NewSecret().Cookie()
	f.Add("a=1; " + sessionCookie + "=" + secret + "; b=2")
	f.Add(sessionCookie + "=" + secret + ";" + sessionCookie + "=" + secret)
	f.Add(loginCookiePrefix + "x=y; =; ;;" + sessionCookie)
	f.Add(strings.Repeat(loginCookiePrefix+"x=y; ", 30) + "a=1")
	f.Add("\t" + sessionCookie + "\t= x ;\x00=" + secret)
	f.Fuzz(func(t *testing.T, line string) {
		r := &http.Request{Header: http.Header{"Cookie": {line}}}
		c := g.handler.readCookies(r)
		if r.Header.Get("Cookie") != line {
			t.Fatal("got a changed header on the request, want it unchanged")
		}
		ours := 0
		var others []string
		for pair := range strings.SplitSeq(line, ";") {
			name, _, _ := strings.Cut(strings.Trim(pair, " \t"), "=")
			switch {
			case name == sessionCookie:
				ours++
			case !strings.HasPrefix(name, loginCookiePrefix):
				others = append(others, strings.Trim(pair, " \t"))
			}
		}
		if c.valid && ours == 0 || c.present != (ours > 0) || len(c.logins) > 20 {
			t.Errorf("%q: got valid %v, present %v, %d login cookies, want those of the line", line, c.valid, c.present, len(c.logins))
		}
		var kept []string
		for _, rest := range c.others {
			for pair := range strings.SplitSeq(rest, ";") {
				kept = append(kept, strings.Trim(pair, " \t"))
			}
		}
		empty := func(s string) bool { return s == "" }
		if got, want := slices.DeleteFunc(kept, empty), slices.DeleteFunc(others, empty); !slices.Equal(got, want) {
			t.Errorf("of %q remains %q, want %q", line, got, want)
		}
	})
}
