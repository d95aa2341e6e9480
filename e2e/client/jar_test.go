package client

import (
	"net/url"
	"strings"
	"testing"
)

func parse(t *testing.T, rawURL string) *url.URL {
	t.Helper()
	u, err := url.Parse(rawURL)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestJarFollowsBrowserRules(t *testing.T) {
	const app = "http://localhost:8081/a/b"
	for _, tc := range []struct {
		name string
		from string // the URL that sets the cookies; app if empty
		set  []string
		to   string // the URL of the request; app if empty
		by   initiator
		want string
	}{
		{name: "simple", set: []string{"a=1"}, want: "a=1"},
		{name: "another port is the same host", set: []string{"a=1; Path=/"}, to: "http://localhost:9/", want: "a=1"},
		{name: "another host", set: []string{"a=1; Path=/"}, to: "http://127.0.0.1:8081/"},
		{name: "host only", set: []string{"a=1; Path=/"}, to: "http://x.localhost/"},
		{name: "domain", set: []string{"a=1; Path=/; Domain=localhost"}, to: "http://x.localhost/", want: "a=1"},
		{name: "domain that is only a string suffix", set: []string{"a=1; Path=/; Domain=localhost"}, to: "http://xlocalhost/"},
		{name: "foreign domain", set: []string{"a=1; Domain=example.test"}},
		{name: "default path", set: []string{"a=1"}, to: "http://localhost/a/c", want: "a=1"},
		{name: "outside the default path", set: []string{"a=1"}, to: "http://localhost/ab"},
		{name: "longer paths first", set: []string{"a=1; Path=/", "b=2; Path=/a"}, want: "b=2; a=1"},
		{name: "replaced", set: []string{"a=1", "b=2", "a=3"}, want: "a=3; b=2"},
		{name: "removed", set: []string{"a=1", "b=2", "a=; Max-Age=0"}, want: "b=2"},
		{name: "removed by date", set: []string{"a=1", "a=x; Expires=Thu, 01 Jan 1970 00:00:00 GMT"}},
		{name: "Max-Age beats Expires", set: []string{"a=1; Max-Age=60; Expires=Thu, 01 Jan 1970 00:00:00 GMT"}, want: "a=1"},
		{name: "secure on loopback", set: []string{"a=1; Secure"}, want: "a=1"},
		{name: "secure elsewhere", from: "http://app.test/", set: []string{"a=1; Secure"}, to: "http://app.test/"},
		{name: "secure is not sent over http", from: "https://app.test/", set: []string{"a=1; Secure"}, to: "http://app.test/"},
		{name: "host prefix", set: []string{"__Host-a=1; Secure; Path=/"}, want: "__Host-a=1"},
		{name: "host prefix without Secure", set: []string{"__Host-a=1; Path=/"}},
		{name: "host prefix with a path", set: []string{"__Host-a=1; Secure; Path=/a"}},
		{name: "host prefix with a domain", set: []string{"__host-a=1; Secure; Path=/; Domain=localhost"}},
		{name: "secure prefix without Secure", set: []string{"__Secure-a=1"}},
		{name: "None needs Secure", set: []string{"a=1; SameSite=None"}},
		{name: "cross-site navigation", by: crossSiteSafe, set: []string{"s=1; SameSite=Strict", "l=2; SameSite=Lax", "n=3; SameSite=None; Secure", "d=4"}, want: "l=2; n=3; d=4"},
		{name: "cross-site form", by: crossSiteForbidden, set: []string{"s=1; SameSite=Strict", "l=2; SameSite=Lax", "n=3; SameSite=None; Secure", "d=4"}, want: "n=3"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.from == "" {
				tc.from = app
			}
			if tc.to == "" {
				tc.to = app
			}
			jar := new(Jar)
			jar.Update(parse(t, tc.from), tc.set)
			var got []string
			for _, c := range jar.cookiesFor(parse(t, tc.to), tc.by) {
				got = append(got, c.Name+"="+c.Value)
			}
			if got := strings.Join(got, "; "); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}
