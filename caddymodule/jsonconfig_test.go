package caddymodule

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
)

// withJSON returns the configuration of site(options, ""), with members added to the JSON
// of its oauth_session handler.
func (w *world) withJSON(options, members string) []byte {
	w.t.Helper()
	const handler = `"handler":"oauth_session",`
	text := string(w.config(site(options, "")))
	if strings.Count(text, handler) != 1 {
		w.t.Fatalf("got no single handler in %s", text)
	}
	return []byte(strings.Replace(text, handler, handler+members+",", 1))
}

func (w *world) validateJSON(config []byte) error {
	w.t.Helper()
	var c *caddy.Config
	if err := json.Unmarshal(config, &c); err != nil {
		w.t.Fatal(err)
	}
	return caddy.Validate(c)
}

// JSON counts nanoseconds, so a number of seconds is far too short.
func TestTimesBelowASecondAreRefusedInJSON(t *testing.T) {
	w := newWorld(t)
	for _, option := range []string{"idle_timeout", "max_lifetime", "refresh_timeout"} {
		for value, refused := range map[string]bool{"3600": true, `"999ms"`: true, `-1`: true, `"1s"`: false, "0": false} {
			err := w.validateJSON(w.withJSON("", `"`+option+`":`+value))
			if (err != nil) != refused || refused && !strings.Contains(err.Error(), option+": ") {
				t.Errorf("%s %s: got error %v, want one that names the option: %v", option, value, err, refused)
			}
		}
	}
}

// A placeholder of a secret is the habit of the other options. The error and the log name
// the option and the placeholder, and never its value.
func TestSecretInPlaceOfACredentialFileIsNotShown(t *testing.T) {
	w := newWorld(t)
	key := newClientKeys(t, 1).pem(t)
	file := filepath.Join(t.TempDir(), "key.b64")
	encoded := base64.StdEncoding.EncodeToString([]byte(key))
	if err := os.WriteFile(file, []byte(encoded), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KEY", key)
	t.Setenv("ENCODED", encoded)
	t.Setenv("ASSERTION", "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhcHAifQ.c2VjcmV0LXNpZ25hdHVyZQ")
	secrets := []string{testSecret, key[40:80], encoded[:40], "eyJzdWIi"}
	asserted := func(file string) []byte {
		return w.config(strings.Replace(keySite(file, ""), "client_key", "client_assertion", 1))
	}
	inJSON := func(members string) []byte {
		return []byte(strings.Replace(string(w.withJSON("", members)), `"client_secret":"{env.SECRET}",`, "", 1))
	}
	for name, tc := range map[string]struct {
		config []byte
		want   string
	}{
		"key":                     {w.config(keySite("{env.KEY}", "")), "client_key"},
		"key in base64":           {w.config(keySite("{env.ENCODED}", "")), "client_key {env.ENCODED}: "},
		"client secret":           {w.config(keySite("{env.SECRET}", "")), "client_key {env.SECRET}: "},
		"part of a path":          {w.config(keySite("/etc/{env.SECRET}.pem", "")), "client_key /etc/{env.SECRET}.pem: "},
		"assertion":               {asserted("{env.ASSERTION}"), "client_assertion"},
		"secret for an assertion": {asserted("{env.SECRET}"), "client_assertion {env.SECRET}: "},
		"authority":               {w.config(site("trusted_ca {env.SECRET}", "")), "trusted_ca {env.SECRET}: "},
		"key of redis": {
			w.config(strings.Replace(site("key "+keyA.Encode(), ""), "store memory", "store redis {\nurl rediss://localhost\ntls {\ncertificate "+file+" {env.KEY}\n}\n}", 1)),
			"store redis tls key {env.KEY}: ",
		},
		"key in JSON":                {inJSON(`"client_key":"{file.` + file + `}"`), "client_key {file." + file + "}: "},
		"key for an assertion, JSON": {inJSON(`"client_assertion":{"file":"{file.` + file + `}"}`), "client_assertion {file." + file + "}: "},
	} {
		t.Run(name, func(t *testing.T) {
			captured.reset()
			err := w.validateJSON(tc.config)
			if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "file") {
				t.Fatalf("got error %v, want one with %q", err, tc.want)
			}
			for _, secret := range secrets {
				if strings.Contains(err.Error(), secret) || strings.Contains(captured.String(), secret) {
					t.Errorf("got %q in the error or the log: %v", secret, err)
				}
			}
		})
	}
}
