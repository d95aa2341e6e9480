package client

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// serve starts a server on 127.0.0.1 and returns its URL with that address and with localhost, which is another site.
func serve(t *testing.T, handler http.HandlerFunc) (address, localhost string) {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.URL, strings.Replace(server.URL, "127.0.0.1", "localhost", 1)
}

func TestFetchSiteDependsOnAllRedirects(t *testing.T) {
	for _, tc := range []struct {
		name  string
		from  string
		chain []string
		want  string
	}{
		{"typed", "", []string{"http://localhost:1/"}, "none"},
		{"typed and redirected", "", []string{"http://localhost:1/", "http://127.0.0.1:2/"}, "none"},
		{"own link", "http://localhost:1/", []string{"http://localhost:1/x"}, "same-origin"},
		{"another port", "http://localhost:1/", []string{"http://localhost:2/"}, "same-site"},
		{"another host", "http://localhost:1/", []string{"http://127.0.0.1:1/"}, "cross-site"},
		{"there and back", "http://localhost:1/", []string{"http://127.0.0.1:1/", "http://localhost:1/"}, "cross-site"},
		{"same site and back", "http://localhost:1/", []string{"http://x.localhost:1/", "http://localhost:1/"}, "cross-site"},
		{"sister hosts", "http://a.app.localhost:1/", []string{"http://b.app.localhost:1/"}, "same-site"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			nav := &navigation{}
			if tc.from != "" {
				nav.from = parse(t, tc.from)
			}
			for _, u := range tc.chain {
				nav.chain = append(nav.chain, parse(t, u))
			}
			if got := nav.fetchSite(); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestInitiatorDependsOnTheStartingPage(t *testing.T) {
	for _, tc := range []struct {
		name, from, method, to string
		want                   initiator
	}{
		{"typed", "", "GET", "http://localhost:1/", sameSite},
		{"own form", "http://localhost:1/", "POST", "http://localhost:2/", sameSite},
		{"cross-site link", "http://127.0.0.1:1/", "GET", "http://localhost:1/", crossSiteSafe},
		{"cross-site form", "http://127.0.0.1:1/", "POST", "http://localhost:1/", crossSiteForbidden},
	} {
		nav := &navigation{}
		if tc.from != "" {
			nav.from = parse(t, tc.from)
		}
		req := httptest.NewRequestWithContext(t.Context(), tc.method, tc.to, nil)
		if got := nav.initiator(req); got != tc.want {
			t.Errorf("%s: got %v, want %v", tc.name, got, tc.want)
		}
	}
}

func TestNavigationAndFetchSendBrowserHeaders(t *testing.T) {
	var seen http.Header
	address, _ := serve(t, func(_ http.ResponseWriter, r *http.Request) { seen = r.Header })
	c := New("", "")
	c.Header = http.Header{"X-Extra": {"yes"}}
	if _, err := c.Navigate(t.Context(), address); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Origin": "", "X-Extra": "yes",
	} {
		if got := seen.Get(name); got != want {
			t.Errorf("navigation: got %s %q, want %q", name, got, want)
		}
	}
	if _, err := c.Fetch(t.Context(), http.MethodPost, address, `{}`); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty", "Origin": address, "Accept": "*/*",
	} {
		if got := seen.Get(name); got != want {
			t.Errorf("fetch: got %s %q, want %q", name, got, want)
		}
	}
}

func TestFormSubmitsItsControls(t *testing.T) {
	for _, tc := range []struct {
		name, page, method string
		want               string
	}{
		{
			"login", `<form method=post action=/in><input name=login><input type=password name=pw><input type=hidden name=id value="a&amp;b"><button>Go</button></form>`,
			"POST", "id=a%26b&login=alice&pw=secret",
		},
		{
			"password by name", `<form method=post><input name=username><input name=password></form>`,
			"POST", "password=secret&username=alice",
		},
		{
			"first button, outside the form", `<form id=f method=POST><input type=hidden name=x value=1></form><button form=f name=ok value=yes>y</button><button form=f name=ok value=no>n</button>`,
			"POST", "ok=yes&x=1",
		},
		{"boxes", `<form><input type=checkbox name=a><input type=checkbox name=b checked><input type=radio name=c value=2 checked></form>`, "GET", "b=on&c=2"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f, err := parseForm([]byte(tc.page))
			if err != nil {
				t.Fatal(err)
			}
			if got := f.fill("alice", "secret").Encode(); got != tc.want || f.method != tc.method {
				t.Errorf("got %s %s, want %s %s", f.method, got, tc.method, tc.want)
			}
		})
	}
	if _, err := parseForm([]byte("<p>no form")); err == nil {
		t.Error("a page without a form: got no error, want one")
	}
}

// TestLoginFollowsRedirectsAndForms logs in at a server on another site.
func TestLoginFollowsRedirectsAndForms(t *testing.T) {
	var appAddress, serverAddress, callbackRequest string
	appAddress, _ = serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/":
			http.SetCookie(w, &http.Cookie{Name: "strict", Value: "1", SameSite: http.SameSiteStrictMode})
			http.Redirect(w, r, serverAddress, http.StatusFound)
		case "/callback":
			_, err := r.Cookie("strict")
			callbackRequest = fmt.Sprint(r.Header.Get("Sec-Fetch-Site"), " ", r.Method, " strict: ", err == nil)
			io.WriteString(w, "welcome "+r.URL.Query().Get("user"))
		}
	})
	_, serverAddress = serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			io.WriteString(w, `<form method=post><input name=user><input type=password name=pw></form>`)
			return
		}
		http.Redirect(w, r, appAddress+"/callback?"+url.Values{"user": {r.PostFormValue("user")}}.Encode(), http.StatusSeeOther)
	})
	page, err := New("alice", "secret").Login(t.Context(), appAddress+"/")
	if err != nil {
		t.Fatal(err)
	}
	if string(page.Body) != "welcome alice" || page.URL.Path != "/callback" {
		t.Errorf("got %v, want alice's page at /callback", page)
	}
	if want := "cross-site GET strict: false"; callbackRequest != want {
		t.Errorf("callback: got %q, want %q", callbackRequest, want)
	}
	var hops []string
	for _, r := range page.Via {
		hops = append(hops, fmt.Sprint(r.Method, " ", r.Status))
	}
	if got, want := strings.Join(hops, ", "), "GET 302, GET 200, POST 303"; got != want {
		t.Errorf("hops: got %s, want %s", got, want)
	}
}

func TestRedirectLoopIsAnError(t *testing.T) {
	address, _ := serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) })
	if _, err := New("", "").Visit(t.Context(), address); err == nil {
		t.Error("got no error, want one")
	}
}

func TestRawSendsTheRequestUnchanged(t *testing.T) {
	address, _ := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Target", r.RequestURI)
		io.WriteString(w, "body")
	})
	addr := strings.TrimPrefix(address, "http://")
	resp, err := Raw(t.Context(), addr, "GET http://evil.test/p HTTP/1.1\r\nHost: app.test\r\n\r\n")
	if err != nil {
		t.Fatal(err)
	}
	if resp.Status != http.StatusOK || string(resp.Body) != "body" || resp.Header.Get("X-Target") != "http://evil.test/p" {
		t.Errorf("got %v, want 200 and the absolute target", resp)
	}
	if resp, err = Raw(t.Context(), addr, "HEAD / HTTP/1.1\r\nHost: app.test\r\n\r\n"); err != nil || resp.Status != http.StatusOK {
		t.Errorf("HEAD: got %v and error %v, want 200", resp, err)
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Raw(canceled, addr, "GET"); err == nil {
		t.Error("with a canceled context: got no error, want one")
	}
}
