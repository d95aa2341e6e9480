package oauth

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// TestNoSecretInErrors: errors contain no secret of the request, even if the server
// repeats the request in responses that fail in different ways.
func TestNoSecretInErrors(t *testing.T) {
	echo := func(status int, wrap func(secrets string) string, header ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			_, password, _ := r.BasicAuth()
			decoded, _ := url.QueryUnescape(password)
			seen := []string{r.Header.Get("Authorization"), password, decoded}
			body, _ := io.ReadAll(r.Body)
			seen = append(seen, string(body))
			form, _ := url.ParseQuery(string(body))
			for _, name := range []string{"client_secret", "code", "code_verifier", "refresh_token", "token"} {
				seen = append(seen, form.Get(name))
			}
			for i := 0; i+1 < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, wrap(strings.Join(seen, "\n")))
		}
	}
	asError := func(code, description string) string {
		return string(must(json.Marshal(map[string]string{"error": code, "error_description": description})))
	}
	asDescription := func(s string) string { return asError("invalid_grant", s) }
	asCode := func(s string) string { return asError(s, "") }
	straddling := func(s string) string { return asError("x", strings.Repeat("x", maxErrorText-20)+s) }
	split := func(s string) string { return asError("x", strings.ReplaceAll(s, canary[3:], "\x00\u00e4"+canary[3:])) }
	asTokens := func(s string) string {
		return string(must(json.Marshal(map[string]any{"access_token": s, "refresh_token": 1})))
	}
	plain := func(s string) string { return s }
	for name, h := range map[string]http.HandlerFunc{
		"description":         echo(400, asDescription),
		"code":                echo(400, asCode),
		"cut in the middle":   echo(400, straddling),
		"split by controls":   echo(400, split),
		"description, 200":    echo(200, asDescription),
		"body 400":            echo(400, plain),
		"body 500":            echo(500, plain),
		"body 200":            echo(200, plain),
		"bad tokens":          echo(200, asTokens),
		"redirect":            echo(302, plain, "Location", "https://evil.test/"+testRefresh),
		"invalid Retry-After": echo(503, plain, "Retry-After", testRefresh),
		"half a response":     echo(200, plain, "Content-Length", "100000"),
		"unknown coding":      echo(200, plain, "Content-Encoding", testRefresh),
		"hangs up (panics)":   func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			for _, method := range []string{"client_secret_basic", "client_secret_post"} {
				s := startServer(t)
				for _, path := range []string{"/token", "/userinfo", "/revoke", "/par"} {
					s.handle(path, h)
				}
				c := s.client(func(c *Config) {
					c.AuthMethod = method
					c.Endpoints.PushedAuthorizationRequest = s.issuer + "/par"
					c.Timeout = 5 * time.Second
				})
				for call, err := range everyCall(t, c) {
					if err == nil && call != "revoke" {
						t.Errorf("%s: got no error", call)
					}
					checkNoSecret(t, err)
				}
			}
		})
	}
}
