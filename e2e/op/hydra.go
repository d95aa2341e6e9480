package op

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/e2e/build"
	"github.com/oauth-session/caddy-oauth-session/e2e/proc"
)

var hydraProgram = build.GoProgram{
	Name:    "hydra",
	Dir:     "hydra",
	Package: "github.com/ory/hydra/v2",
	Flags:   []string{"-trimpath", "-ldflags=-s -w", "-tags=sqlite,sqlite_omit_load_extension"},
	Env:     []string{"CGO_ENABLED=1"}, // for SQLite
}

// Hydra starts Ory Hydra, with the app at the origin site as its client, and the app at the origin keyed as KeyedClient, whose
// keys it fetches. Hydra has no login pages of its own: those of
// hydraPages ask for a name, and accept any. Parallel refreshes with one token all succeed, but at most one of the new
// refresh tokens works. Its logout tokens have no exp.
func Hydra(t testing.TB, site, keyed string, accessTokenLifetime time.Duration) *Server {
	t.Helper()
	exe, err := hydraProgram.Once(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	public, admin := proc.FreePort(t), proc.FreePort(t)
	adminURL := fmt.Sprintf("http://127.0.0.1:%d/admin", admin)
	pages := httptest.NewServer(hydraPages(adminURL))
	t.Cleanup(pages.Close)
	s := &Server{
		Issuer: fmt.Sprintf("http://127.0.0.1:%d/", public), ClientID: "odd:id+1", ClientSecret: "p+s %41:&=/?~x",
		User: "alice", Password: "any",
	}
	s.SignOutURL = s.Issuer + "oauth2/sessions/logout"
	config, err := json.Marshal(map[string]any{
		"serve": map[string]any{
			"public": map[string]any{"host": "127.0.0.1", "port": public},
			"admin":  map[string]any{"host": "127.0.0.1", "port": admin},
		},
		"dsn": "memory",
		"urls": map[string]any{
			"self":  map[string]any{"issuer": s.Issuer},
			"login": pages.URL + "/login", "consent": pages.URL + "/consent", "logout": pages.URL + "/logout",
			"post_logout_redirect": pages.URL + "/signed-out", "error": pages.URL + "/error",
		},
		"secrets":    map[string]any{"system": []string{"a-system-secret-of-32-characters!"}},
		"ttl":        map[string]any{"access_token": accessTokenLifetime.String(), "refresh_token": "1h"},
		"strategies": map[string]any{"access_token": "jwt"},
		"oauth2":     map[string]any{"pkce": map[string]any{"enforced": true}, "expose_internal_errors": true},
		"sqa":        map[string]any{"opt_out": true},
	})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "hydra.json")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "serve", "all", "--dev", "--config", file)
	cmd.Env = append(os.Environ(), "SQA_OPT_OUT=true")
	s.Process = proc.Start(t, "hydra", cmd)
	s.Process.Await(t, "health", func(ctx context.Context) bool {
		return healthy(ctx, s.Issuer+"health/ready") && healthy(ctx, fmt.Sprintf("http://127.0.0.1:%d/health/ready", admin))
	})
	for site, client := range map[string]map[string]any{
		site: {"client_id": s.ClientID, "client_secret": s.ClientSecret, "token_endpoint_auth_method": "client_secret_basic"},
		keyed: {
			"client_id": KeyedClient, "token_endpoint_auth_method": "private_key_jwt", "token_endpoint_auth_signing_alg": "ES256",
			"jwks_uri": keyed + "/oauth2/jwks.json",
		},
	} {
		maps.Copy(client, map[string]any{
			"grant_types": []string{"authorization_code", "refresh_token"}, "response_types": []string{"code"},
			"scope": "openid offline_access email", "redirect_uris": []string{site + "/oauth2/callback"},
			"post_logout_redirect_uris": []string{site + "/oauth2/logout/callback"},
			"backchannel_logout_uri":    site + "/oauth2/backchannel_logout", "backchannel_logout_session_required": true,
		})
		if err := callJSON(t.Context(), http.MethodPost, adminURL+"/clients", client, nil); err != nil {
			t.Fatal(err)
		}
	}
	return s
}
