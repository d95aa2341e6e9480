package caddymodule

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// The error of an unsafe or impossible configuration names the option and does not
// contain its value.
func TestUnsafeConfigurationIsRefused(t *testing.T) {
	w := newWorld(t)
	file := func(name, content string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	t.Setenv("EMPTY", "")
	t.Setenv("SHORT_KEY", "c2hvcnRrZXlzaG9ydGtleQ")
	t.Setenv("CHANGEME", "changeme")
	t.Setenv("EQUAL_KEY", "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE")
	key := seal.NewKey().Encode()
	t.Setenv("GOOD_KEY", key)
	t.Setenv("PLAIN_HTTP", "http://login.example.test")

	for _, tc := range []struct {
		name, options string
		want          string   // the option in the error
		secrets       []string // not in the error
	}{
		{"missing env", "issuer {$ISSUER}\nclient_id app\nclient_secret {env.NO_SUCH_VARIABLE}", "client_secret", nil},
		{"empty env", "issuer {$ISSUER}\nclient_id app\nclient_secret {env.EMPTY}", "client_secret", nil},
		{"missing file", "issuer {$ISSUER}\nclient_id app\nclient_secret {file./nonexistent/secret}", "client_secret", nil},
		{"empty file", "issuer {$ISSUER}\nclient_id app\nclient_secret {file." + file("empty", "") + "}", "client_secret", nil},
		{"file with a newline only", "issuer {$ISSUER}\nclient_id app\nclient_secret {file." + file("newline", "\n") + "}", "client_secret", nil},
		{"unknown placeholder", "issuer {$ISSUER}\nclient_id app\nclient_secret {http.request.host}", "client_secret", nil},
		{"empty issuer", "issuer {env.EMPTY}\nclient_id app", "issuer", nil},
		{"empty client_id", "issuer {$ISSUER}\nclient_id {env.EMPTY}", "client_id", nil},
		{"issuer on plain http", "issuer {env.PLAIN_HTTP}\nclient_id app", "issuer", nil},
		{"token endpoint on plain http", "issuer {$ISSUER}\ntoken_endpoint http://login.example.test/token\nclient_id app", "token_endpoint", nil},
		{"base_url on plain http", "issuer {$ISSUER}\nclient_id app\nbase_url http://app.example.test", "base_url", nil},
		{"base_url with a path", "issuer {$ISSUER}\nclient_id app\nbase_url https://app.example.test/app", "base_url", nil},
		{"scope openid without issuer", "authorization_endpoint {$ISSUER}/authorize\ntoken_endpoint {$ISSUER}/token\nclient_id app\nscope openid", "scope", nil},
		{"protocol parameter", "issuer {$ISSUER}\nclient_id app\nauthorize_param state x", "authorize_param state", nil},
		{"short key", "issuer {$ISSUER}\nclient_id app\nkey {env.SHORT_KEY}", "key", []string{os.Getenv("SHORT_KEY")}},
		{"key changeme", "issuer {$ISSUER}\nclient_id app\nkey {env.CHANGEME}", "key", []string{"changeme"}},
		{"key of equal bytes", "issuer {$ISSUER}\nclient_id app\nkey {env.EQUAL_KEY}", "key", []string{os.Getenv("EQUAL_KEY")}},
		{"the same key twice", "issuer {$ISSUER}\nclient_id app\nkey {env.GOOD_KEY} {env.GOOD_KEY}", "key", []string{key}},
		{"empty key", "issuer {$ISSUER}\nclient_id app\nkey {env.GOOD_KEY} {env.EMPTY}", "key", []string{key}},
		{"missing CA file", "issuer {$ISSUER}\nclient_id app\ntrusted_ca /nonexistent/ca.pem", "trusted_ca", nil},
		{"CA file without certificate", "issuer {$ISSUER}\nclient_id app\ntrusted_ca " + file("ca.pem", "no certificate"), "trusted_ca", nil},
		{"cookie without its prefix", "issuer {$ISSUER}\nclient_id app\ncookie {\nname session\n}", "cookie name", nil},
		{"cookie of a domain with __Host-", "issuer {$ISSUER}\nclient_id app\ncookie {\nname __Host-s\ndomain example.test\n}", "cookie name", nil},
		{"trusted origin with a path", "issuer {$ISSUER}\nclient_id app\ntrusted_origins https://a.example.test/x", "trusted_origins", nil},
		{"shared store without keys", "issuer {$ISSUER}\nclient_id app\nstore redis", "keygen", nil},
		{"password in a store's URL", "issuer {$ISSUER}\nclient_id app\nkey {env.GOOD_KEY}\nstore redis redis://user:hunter2@127.0.0.1", "store redis url", []string{"hunter2"}},
		{"missing store password", "issuer {$ISSUER}\nclient_id app\nkey {env.GOOD_KEY}\nstore redis {\npassword {env.EMPTY}\n}", "store redis password", nil},
		{"TLS without rediss", "issuer {$ISSUER}\nclient_id app\nkey {env.GOOD_KEY}\nstore redis redis://127.0.0.1 {\ntls {\nserver_name redis.example.test\n}\n}", "rediss", nil},
		{"store certificate without file", "issuer {$ISSUER}\nclient_id app\nkey {env.GOOD_KEY}\nstore redis rediss://127.0.0.1 {\ntls {\ncertificate /nonexistent/c.pem /nonexistent/k.pem\n}\n}", "certificate", nil},
		{"bad store prefix", "issuer {$ISSUER}\nclient_id app\nkey {env.GOOD_KEY}\nstore redis {\nprefix a{b\n}", "prefix", nil},
		{"empty store path", "issuer {$ISSUER}\nclient_id app\nstore bolt {\npath {env.EMPTY}\n}", "store path", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := w.validate("http://localhost:{$PORT} {\noauth_session {\n" + tc.options + "\n}\n}")
			if err == nil {
				t.Fatal("got no error")
			}
			// Caddy's own text contains the name of the module, so the option must follow it.
			_, text, _ := strings.Cut(err.Error(), "http.handlers.oauth_session")
			if !strings.Contains(text, tc.want) {
				t.Errorf("got error %v, want one with %q", err, tc.want)
			}
			for _, s := range append(tc.secrets, testSecret) {
				if strings.Contains(err.Error(), s) {
					t.Errorf("got a secret in the error %v", err)
				}
			}
		})
	}
}

// Provisioning checks JSON as the Caddyfile parser checks its input.
func TestInvalidJSONIsRefused(t *testing.T) {
	isolate(t)
	for _, tc := range []struct{ name, handler, want string }{
		{"unknown option", `"issuer":"https://login.example.test","client_id":"app","clientsecret":"x"`, "clientsecret"},
		{"no client_id", `"issuer":"https://login.example.test"`, "client_id"},
		{"no server", `"client_id":"app"`, "authorization_endpoint"},
		{"secret and none", `"issuer":"https://login.example.test","client_id":"app","client_secret":"x","token_endpoint_auth_method":"none"`, "token_endpoint_auth_method"},
		{"basic without secret", `"issuer":"https://login.example.test","client_id":"app","token_endpoint_auth_method":"client_secret_basic"`, "client_secret"},
		{"unknown method", `"issuer":"https://login.example.test","client_id":"app","client_secret":"x","token_endpoint_auth_method":"basic"`, "token_endpoint_auth_method"},
		{"unknown policy", `"issuer":"https://login.example.test","client_id":"app","authorization":"drop"`, "authorization"},
		{"unknown stream_token_expiry", `"issuer":"https://login.example.test","client_id":"app","stream_token_expiry":"end"`, "stream_token_expiry"},
		{"unknown matcher", `"issuer":"https://login.example.test","client_id":"app","idle_ignore":[{"paths":["/poll"]}]`, "idle_ignore"},
		{"header without token", `"issuer":"https://login.example.test","client_id":"app","header":{"name":"X-Token","value":"x"}`, "header"},
		{"header without name", `"issuer":"https://login.example.test","client_id":"app","header":{"value":"{token}"}`, "header"},
		{"require without values", `"issuer":"https://login.example.test","client_id":"app","require":[{"claim":"groups","values":[]}]`, "require"},
		{"negative duration", `"issuer":"https://login.example.test","client_id":"app","idle_timeout":-1`, "idle_timeout"},
		{"unknown store", `"issuer":"https://login.example.test","client_id":"app","store":{"store":"paper"}`, "store"},
		{"bad prefix", `"issuer":"https://login.example.test","client_id":"app","path_prefix":"oauth2/"`, "path_prefix"},
		{"unknown response_mode", `"issuer":"https://login.example.test","client_id":"app","response_mode":"fragment"`, "use query or form_post"},
		{"response_mode as a parameter", `"issuer":"https://login.example.test","client_id":"app","authorize_param":[{"name":"response_mode","value":"form_post"}]`, "use the option response_mode"},
		{"reserved login_param", `"issuer":"https://login.example.test","client_id":"app","login_param":["nonce"]`, "login_param"},
		{"partitioned without same_site none", `"issuer":"https://login.example.test","client_id":"app","cookie":{"partitioned":true}`, "same_site none"},
		{"bad same_site", `"issuer":"https://login.example.test","client_id":"app","cookie":{"same_site":"loose"}`, "same_site"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := validateJSON(t, `{"handler":"oauth_session",`+tc.handler+`}`)
			if err == nil {
				t.Fatal("got no error")
			}
			_, text, _ := strings.Cut(err.Error(), "http.handlers.oauth_session")
			if !strings.Contains(text, tc.want) {
				t.Errorf("got error %v, want one with %q", err, tc.want)
			}
		})
	}
}

func validateJSON(t *testing.T, handler string) error {
	t.Helper()
	return validateRoutes(t, `{"handle":[`+handler+`]}`)
}

func validateRoutes(t *testing.T, routes string) error {
	t.Helper()
	c := new(caddy.Config)
	err := caddy.StrictUnmarshalJSON([]byte(`{"logging":{"logs":{"default":{"writer":{"output":"capture"}}}},"apps":{"http":{"servers":{"s":{"listen":["127.0.0.1:0"],"automatic_https":{"disable":true},"routes":[`+routes+`]}}}}}`), c)
	if err != nil {
		t.Fatal(err)
	}
	return caddy.Validate(c)
}

// The client secret in a file is read for each use, so replacing the file rotates it.
func TestReplacedSecretFileIsUsed(t *testing.T) {
	w := newWorld(t)
	file := filepath.Join(t.TempDir(), "secret")
	write := func(secret string) {
		if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("CS_old")
	w.load("http://localhost:{$PORT} {\noauth_session {\nissuer {$ISSUER}\nclient_id app\nclient_secret {file." + file + "}\nstore memory\n}\nreverse_proxy {$APP}\n}")
	if a := newBrowser(t, w.origin).visit("/"); a.status != 502 {
		t.Fatalf("login with the old secret: got status %d, want 502", a.status)
	}
	write(testSecret)
	newBrowser(t, w.origin).login("/")
	for _, s := range []string{testSecret, "CS_old"} {
		if found := captured.lines(s); found != nil {
			t.Errorf("got the secret in the log: %s", found)
		}
	}
}
