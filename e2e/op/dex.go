package op

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/e2e/build"
	"github.com/oauth-session/caddy-oauth-session/e2e/proc"
)

var dexProgram = build.GoProgram{
	Name:    "dex",
	Dir:     "dex",
	Package: "github.com/dexidp/dex/cmd/dex",
	Flags:   []string{"-trimpath", "-ldflags=-s -w"},
	Env:     []string{"CGO_ENABLED=0"},
}

// Dex starts Dex with its mock connector, which logs "Kilgore Trout" in without a form. Refresh tokens rotate without a
// grace period; the error for a dead one is invalid_request. Access tokens are JWTs. Zero lifetime means 5 minutes.
func Dex(t testing.TB, redirectURI string, accessTokenLifetime time.Duration) *Server {
	t.Helper()
	exe, err := dexProgram.Once(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if accessTokenLifetime == 0 {
		accessTokenLifetime = 5 * time.Minute
	}
	address := fmt.Sprintf("127.0.0.1:%d", proc.FreePort(t))
	s := &Server{Issuer: "http://" + address + "/dex", ClientID: "odd:id+1", ClientSecret: "p+s %41:&=/?~x"}
	// Dex reads YAML, and JSON is valid YAML.
	config, err := json.Marshal(map[string]any{
		"issuer":  s.Issuer,
		"storage": map[string]any{"type": "memory"},
		"web":     map[string]any{"http": address},
		"expiry": map[string]any{
			"idTokens":      accessTokenLifetime.String(), // also the lifetime of access tokens
			"refreshTokens": map[string]any{"disableRotation": false, "reuseInterval": "0s"},
		},
		"oauth2": map[string]any{"responseTypes": []string{"code"}, "skipApprovalScreen": true},
		"staticClients": []any{map[string]any{
			"id": s.ClientID, "name": "app", "secret": s.ClientSecret, "redirectURIs": []string{redirectURI},
		}},
		"connectors": []any{map[string]any{"type": "mockCallback", "id": "mock", "name": "Mock"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "dex.yaml")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	s.Process = proc.Start(t, "dex", exec.Command(exe, "serve", file))
	s.Process.Await(t, "health", func(ctx context.Context) bool { return healthy(ctx, s.Issuer+"/healthz") })
	return s
}

func healthy(ctx context.Context, url string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}
