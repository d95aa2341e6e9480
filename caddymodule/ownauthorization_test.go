package caddymodule

import (
	"net/http"
	"strings"
	"testing"
)

// An app with a login of its own does not get its credentials. The log says why, and the
// remedy that it names works.
func TestRemovedAuthorizationIsExplained(t *testing.T) {
	for scheme, credentials := range map[string]string{"Basic": "Basic bm9kZTpyZWQ=", "Bearer": "Bearer npm_canary", "unknown": "Signature canary"} {
		t.Run(scheme, func(t *testing.T) {
			w := newWorld(t)
			w.load(site("", ""))
			b := newBrowser(t, w.origin)
			b.login("/")
			for range 3 {
				a := b.send(http.MethodGet, "/api", http.Header{"Authorization": {credentials}})
				if a.status != http.StatusOK || a.echo(t).Values("Authorization")[0] == credentials {
					t.Fatalf("got status %d: %s, want the token in place of the credentials", a.status, a.body)
				}
			}
			line := captured.wait(t, "authorization keep", "header <name> {token}", `"scheme":"`+scheme+`"`)
			if lines := captured.lines("authorization keep"); len(lines) != 1 || strings.Contains(line, strings.Fields(credentials)[1]) {
				t.Errorf("got log lines %q, want one a minute without the credentials", lines)
			}
			captured.reset()
			w.load(site("authorization keep\nheader X-Token {token}", ""))
			a := b.send(http.MethodGet, "/api", http.Header{"Authorization": {credentials}})
			if got := a.echo(t); got.Values("Authorization")[0] != credentials || got.Values("X-Token") == nil {
				t.Errorf("with the remedies: got %q and token %q, want the app's credentials and a token", got.Values("Authorization"), got.Values("X-Token"))
			}
			if lines := captured.lines("did not reach the app"); lines != nil {
				t.Errorf("with the remedies: got log lines %q, want none", lines)
			}
		})
	}
}
