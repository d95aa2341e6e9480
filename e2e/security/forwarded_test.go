package security

import (
	"net/http"
	"slices"
	"testing"
)

// clientIPs returns the client addresses of the access log's entries for a URI.
func (w *world) clientIPs(t *testing.T, uri string) []string {
	t.Helper()
	var ips []string
	for _, entry := range w.instances[0].Entries(t, "http.log.access") {
		request, _ := entry["request"].(map[string]any)
		if request["uri"] == uri {
			ip, _ := request["client_ip"].(string)
			ips = append(ips, ip)
		}
	}
	return ips
}

// TestS06ForwardedNeedsATrustedProxy: forwarding headers have an effect only if they come
// from a proxy that Caddy is configured to trust.
func TestS06ForwardedNeedsATrustedProxy(t *testing.T) {
	t.Parallel()
	// Requests from these networks may pass without a session.
	inside := plan{
		noBaseURL: true, optionalLine: "optional @inside", before: "@inside client_ip 203.0.113.0/24 127.99.0.0/16",
	}
	forged := []string{
		"X-Forwarded-Proto: http", "X-Forwarded-For: 203.0.113.9", "X-Forwarded-For: 127.99.0.1", "X-Forwarded-For: a", "X-Real-IP: 203.0.113.9",
		"X-Forwarded-Port: 80", "X-Forwarded-Host: evil.test", "Forwarded: for=203.0.113.9;proto=http;host=evil.test",
	}
	t.Run("untrusted", func(t *testing.T) {
		w := newWorld(t, inside)
		for _, lines := range append([][]string{forged}, slices.Collect(slices.Chunk(forged, 1))...) {
			if got := w.redirectURI(t, lines...); got != w.site+callback {
				t.Errorf("%q: got redirect_uri %q, want the site's", lines, got)
			}
			reached := w.appRequests(func() {
				w.checkRefused(t, w.browser().send(t, http.MethodGet, "/forged", "", append(lines, scriptHeaders...)...))
			})
			if len(reached) != 0 {
				t.Errorf("%q: the app got %v, want no request", lines, reached)
			}
		}
		// The headers do not disturb a session either.
		b := w.browser()
		b.login(t, "/")
		if got := b.send(t, http.MethodGet, "/with-session", "", append(forged, scriptHeaders...)...); got.Status != http.StatusOK {
			t.Errorf("with a session: got %v, want 200", got)
		}
		for _, ip := range append(w.clientIPs(t, "/forged"), w.clientIPs(t, "/with-session")...) {
			if ip != "127.0.0.1" {
				t.Errorf("got client %s in the log, want 127.0.0.1", ip)
			}
		}
	})
	t.Run("trusted", func(t *testing.T) {
		trusting := inside
		trusting.global = "\tservers {ADDR} {\n\t\ttrusted_proxies static 127.0.0.1/32\n\t}\n"
		w := newWorld(t, trusting)
		if got := w.redirectURI(t, "X-Forwarded-Proto: https", "X-Forwarded-Host: public.app.test"); got != "https://public.app.test"+callback {
			t.Errorf("one proxy: got redirect_uri %q", got)
		}
		// In a chain, the entry of the nearest proxy counts.
		if got := w.redirectURI(t, "X-Forwarded-Proto: https", "X-Forwarded-Host: evil.test, public.app.test"); got != "https://public.app.test"+callback {
			t.Errorf("chain of proxies: got redirect_uri %q", got)
		}
		// Browsers keep no session cookie on plain http, so no login starts.
		if got := w.redirectURI(t, "X-Forwarded-Proto: http", "X-Forwarded-Host: public.app.test"); got != "" {
			t.Errorf("plain http: got redirect_uri %q, want no login", got)
		}
		reached := w.appRequests(func() {
			w.browser().send(t, http.MethodGet, "/trusted", "", append([]string{"X-Forwarded-For: 203.0.113.9"}, scriptHeaders...)...)
		})
		if len(reached) != 1 || reached[0].Values("Authorization") != nil {
			t.Errorf("the app got %v, want one request without Authorization", reached)
		}
		if got := w.clientIPs(t, "/trusted"); !slices.Equal(got, []string{"203.0.113.9"}) {
			t.Errorf("got clients %v in the log, want 203.0.113.9", got)
		}
	})
}
