package handler

import (
	"net/http"
	"slices"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// neighbours is an option: other sites on the host have these session cookies.
func neighbours(s *setup) {
	s.handler.OtherCookies = func(*http.Request, string) []string { return []string{"__Host-a", sessionCookie, "__Host-b"} }
}

// TestCookiesOfOtherHandlersReachNoApp, and are no session of this Handler.
func TestCookiesOfOtherHandlersReachNoApp(t *testing.T) {
	g := newRig(t, plainOAuth, optional, neighbours)
	ours := sessionCookie + "=" + g.session("")
	other := seal.NewSecret().Cookie()
	for sent, want := range map[string]string{
		"":                                      "",
		"app=1":                                 "app=1",
		"__Host-a=" + other:                     "",
		"app=1; __Host-a=" + other + "; x=2":    "app=1; x=2",
		"__Host-b=" + other + "; __Host-a=;y=3": "y=3",
		"__Host-aa=1; x=__Host-a=2":             "__Host-aa=1; x=__Host-a=2",
		"app=__Host-b":                          "app=__Host-b",
	} {
		for _, own := range []string{"", ours} {
			var header, wanted []string
			if line := join(sent, own); line != "" {
				header = append(header, "Cookie: "+line)
			}
			if want != "" {
				wanted = []string{want}
			}
			a := g.get("/", append(header, script...)...)
			if got := g.app.last()["Cookie"]; a.relayed != 1 || !slices.Equal(got, wanted) {
				t.Errorf("of %q the app got %q, want %q", header, got, wanted)
			}
			if got := g.app.last()["Authorization"] != nil; got != (own != "") {
				t.Errorf("%q: got relayed with a session %v, want that of the table", header, got)
			}
		}
	}
}

func join(a, b string) string {
	if a != "" && b != "" {
		return a + "; " + b
	}
	return a + b
}

func TestAppCannotSetCookiesOfOtherHandlers(t *testing.T) {
	g := newRig(t, plainOAuth, optional, neighbours)
	g.app.answer = func(w http.ResponseWriter, _ *http.Request) error {
		w.Header()["Set-Cookie"] = []string{"__Host-a=evil; Path=/; Secure", "a=1", "__Host-b", "__Host-aa=1", sessionCookie + "=x"}
		return nil
	}
	for _, header := range [][]string{script, with(g.session(""), script)} {
		if a := g.get("/", header...); !slices.Equal(a.header["Set-Cookie"], []string{"a=1", "__Host-aa=1"}) {
			t.Errorf("got cookies %q, want the app's only", a.header["Set-Cookie"])
		}
	}
}

// TestAppCannotSetCookiesForADomainOfOtherHandlers: such a cookie reaches sites on
// other hosts.
func TestAppCannotSetCookiesForADomainOfOtherHandlers(t *testing.T) {
	var asked []string
	g := newRig(t, plainOAuth, optional, func(s *setup) {
		s.handler.OtherCookies = func(_ *http.Request, domain string) []string {
			if domain == "" {
				return nil
			}
			asked = append(asked, domain)
			return []string{"__Secure-n"}
		}
	})
	g.app.answer = func(w http.ResponseWriter, _ *http.Request) error {
		w.Header()["Set-Cookie"] = []string{
			"__Secure-n=1; Secure", "__Secure-n=2; Path=/; DOMAIN = .app.test; Secure", "__Secure-n=3; Domain=a.test; Domain=app.test",
			"__Secure-o=4; Domain=app.test", "__Secure-n=5; Domain=",
		}
		return nil
	}
	a := g.get("/", script...)
	if want := []string{"__Secure-n=1; Secure", "__Secure-o=4; Domain=app.test", "__Secure-n=5; Domain="}; !slices.Equal(a.header["Set-Cookie"], want) {
		t.Errorf("the browser gets %q, want %q", a.header["Set-Cookie"], want)
	}
	if slices.ContainsFunc(asked, func(domain string) bool { return domain != "app.test" }) {
		t.Errorf("got calls for the domains %q, want one for each cookie", asked)
	}
}
