package oauth

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestCheckFindsWhatALoginWillMeet: each row changes one thing at a server with which
// Check finds nothing.
func TestCheckFindsWhatALoginWillMeet(t *testing.T) {
	metadataWith := func(name string, value any) func(*server, *Config) {
		return func(s *server, _ *Config) { s.metadata = edit(s.metadata, name, value) }
	}
	for name, tc := range map[string]struct {
		change  func(*server, *Config)
		code    string // of the only problem; empty: none
		option  string
		text    string // in its error
		serious bool
	}{
		"all is well":       {func(*server, *Config) {}, "", "", "", false},
		"no lists":          {func(s *server, _ *Config) { s.metadata = edit(s.metadata, "code_challenge_methods_supported", nil) }, "", "", "", false},
		"other issuer":      {metadataWith("issuer", "https://other.test"), ProblemMetadata, "issuer", "https://other.test", true},
		"no metadata":       {func(s *server, _ *Config) { s.respond(wellKnown, 404, "") }, ProblemMetadata, "issuer", "no metadata there", true},
		"no token endpoint": {metadataWith("token_endpoint", nil), ProblemEndpoint, "token_endpoint", "no such endpoint", true},
		"no keys":           {metadataWith("jwks_uri", nil), ProblemKeys, "jwks_uri", "no such endpoint", true},
		"other algorithm":   {func(_ *server, c *Config) { c.IDTokenAlgorithm = "EdDSA" }, ProblemAlgorithm, "id_token_signed_response_alg", "EdDSA", true},
		"authentication":    {metadataWith("token_endpoint_auth_methods_supported", []string{"client_secret_post"}), ProblemAuthMethod, "token_endpoint_auth_method", "client_secret_basic", false},
		"plain PKCE":        {metadataWith("code_challenge_methods_supported", []string{"plain"}), ProblemPKCE, "issuer", "S256", false},
		"response mode": {func(s *server, c *Config) {
			s.metadata = edit(s.metadata, "response_modes_supported", []string{"query"})
			c.ResponseMode = ResponseModeFormPost
		}, ProblemResponseMode, "response_mode", "form_post", false},
		"PAR without address": {metadataWith("require_pushed_authorization_requests", true), ProblemPAR, "pushed_authorization_request_endpoint", "pushed", true},
		"no openid":           {func(_ *server, c *Config) { c.Scopes = []string{"profile"} }, ProblemScope, "scope", "openid", false},
	} {
		t.Run(name, func(t *testing.T) {
			s := startServer(t)
			cfg := s.config()
			cfg.AuthMethod = "client_secret_basic"
			tc.change(s, &cfg)
			c, err := New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			problems := c.Check(testContext(t))
			if tc.code == "" {
				if len(problems) > 0 {
					t.Errorf("got %+v, want none", problems)
				}
				return
			}
			if len(problems) != 1 || problems[0].Code != tc.code || problems[0].Option != tc.option ||
				problems[0].Warning == tc.serious || !strings.Contains(problems[0].Err.Error(), tc.text) {
				t.Errorf("got %+v, want %s at %s with %q", problems, tc.code, tc.option, tc.text)
			}
		})
	}
}

// TestCheckComparesClocks: the Date of the server may be off by the time of an answer and
// by half a minute.
func TestCheckComparesClocks(t *testing.T) {
	for offset, want := range map[time.Duration]string{
		-10 * time.Minute: "behind", 10 * time.Minute: "ahead", time.Hour: "ahead",
		20 * time.Second: "", -20 * time.Second: "", 0: "",
	} {
		t.Run(offset.String(), func(t *testing.T) {
			s := startServer(t)
			for path, answer := range map[string]any{wellKnown: s.metadata, "/jwks": map[string]any{"keys": s.keys}} {
				s.handle(path, func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Date", time.Now().Add(offset).UTC().Format(http.TimeFormat))
					writeJSON(w, answer)
				})
			}
			problems := s.client().Check(testContext(t))
			switch {
			case want == "" && len(problems) > 0:
				t.Errorf("got %+v, want none", problems)
			case want != "" && (len(problems) != 1 || problems[0].Code != ProblemClock || !problems[0].Warning || !strings.Contains(problems[0].Err.Error(), want)):
				t.Errorf("got %+v, want a warning with %q", problems, want)
			}
		})
	}
}
