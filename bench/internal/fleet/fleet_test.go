package fleet

import (
	"net/http"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/bench/internal/check"
)

func TestAppCountsRequestsAndValidTokens(t *testing.T) {
	f := &Fleet{prefix: "good"}
	defer f.Close()
	f.startApp()
	for path, authorization := range map[string]string{"/200": "", "/10240": "Bearer good-token", "/0": "Bearer bad", "/1": "Basic good"} {
		req := check.Value(http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+f.app+path, nil))
		req.Header.Set("Authorization", authorization)
		resp := check.Value(http.DefaultClient.Do(req))
		resp.Body.Close()
		if got, want := resp.Header.Get("Content-Length"), path[1:]; resp.StatusCode != 200 || got != want {
			t.Errorf("%s: got status %d and %s bytes, want 200 and %s", path, resp.StatusCode, got, want)
		}
	}
	if requests, bearers := f.Counts(); requests != 4 || bearers != 1 {
		t.Errorf("got %d requests and %d valid tokens, want 4 and 1", requests, bearers)
	}
}
