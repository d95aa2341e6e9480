package fleet

import (
	"net/http"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/bench/internal/stores"
)

func TestAppCountsRequestsAndValidTokens(t *testing.T) {
	f := &Fleet{prefix: "good"}
	defer f.Close()
	f.startApp()
	for path, authorization := range map[string]string{"/200": "", "/10240": "Bearer good-token", "/0": "Bearer bad", "/1": "Basic good"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+f.app+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", authorization)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if got, want := resp.Header.Get("Content-Length"), path[1:]; resp.StatusCode != 200 || got != want {
			t.Errorf("%s: got status %d and %s bytes, want 200 and %s", path, resp.StatusCode, got, want)
		}
	}
	if requests, bearers := f.Counts(); requests != 4 || bearers != 1 {
		t.Errorf("got %d requests and %d valid tokens, want 4 and 1", requests, bearers)
	}
}

func TestOnlySubjectsWithALoginHaveTheDirective(t *testing.T) {
	f := &Fleet{servers: servers{app: "127.0.0.1:1"}}
	defer f.Close()
	plain, header, bolt := &Subject{Name: Plain}, &Subject{Name: PlainHeader}, &Subject{Name: Bolt, store: "sessions.db"}
	f.startIssuer(plain, header, bolt)
	for _, s := range []*Subject{plain, header, bolt} {
		got := f.caddyfile("admin.sock", s)
		if strings.Contains(got, "oauth_session {") != s.LogsIn() || strings.Contains(got, clientSecret) || !strings.Contains(got, "reverse_proxy "+f.app) {
			t.Errorf("%s: got\n%s", s.Name, got)
		}
		if long := len(got) > stores.AccessTokenSize; long != (s.Name == PlainHeader) {
			t.Errorf("%s: got %d bytes", s.Name, len(got))
		}
	}
}
