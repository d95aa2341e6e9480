package caddymodule

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	zapobserver "go.uber.org/zap/zaptest/observer"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
	"github.com/oauth-session/caddy-oauth-session/oauth"
)

// clientKeys are private keys of a client.
type clientKeys []*ecdsa.PrivateKey

func newClientKeys(t *testing.T, n int) (keys clientKeys) {
	t.Helper()
	for range n {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
	}
	return keys
}

func (keys clientKeys) pem(t *testing.T) string {
	t.Helper()
	var text strings.Builder
	for _, key := range keys {
		text.WriteString(keyPEM(t, key))
	}
	return text.String()
}

func keyPEM(t *testing.T, key any) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// public returns the public keys by their thumbprint (RFC 7638), the default kid.
func (keys clientKeys) public(t *testing.T) map[string]crypto.PublicKey {
	t.Helper()
	public := map[string]crypto.PublicKey{}
	for _, key := range keys {
		thumbprint, err := (&jose.JSONWebKey{Key: key.Public()}).Thumbprint(crypto.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		public[base64.RawURLEncoding.EncodeToString(thumbprint)] = key.Public()
	}
	return public
}

// writeSettled replaces a file. Its content looks as if written a while ago, so that it
// is complete.
func writeSettled(t *testing.T, path, content string) {
	t.Helper()
	then := time.Now().Add(-time.Minute)
	if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path+".new", then, then); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// keySite returns a site whose client authenticates with a key, with further options.
func keySite(file, options string) string {
	login := strings.Replace(loginOptions, "client_secret {env.SECRET}", "client_key "+file, 1)
	return fmt.Sprintf("http://localhost:{$PORT} {\nlog\noauth_session {\n%s\n%s\n}\nreverse_proxy {$APP} {\ntransport http {\ndial_timeout 1m\n}\n}\n}\n", login, options)
}

// newKeyWorld returns a world with a client that has private_key_jwt, and the file with
// its keys.
func newKeyWorld(t *testing.T, keys clientKeys) (w *world, file string) {
	t.Helper()
	w = newWorld(t)
	w.as.AddClient(fakeas.Client{
		ID: "app", AuthMethod: fakeas.AuthPrivateKeyJWT,
		RedirectURIs: []string{w.origin + "/oauth2/callback"}, PostLogoutRedirectURIs: []string{w.origin + "/oauth2/logout/callback"},
	})
	w.as.SetAssertionKeys("app", keys.public(t))
	file = filepath.Join(t.TempDir(), "client.pem")
	writeSettled(t, file, keys[:1].pem(t))
	return w, file
}

// A client with a key and no secret logs in, refreshes and revokes. The keys are replaced
// under load, and no request fails. The log has no assertion and no key.
func TestClientKeyIsReplacedUnderLoad(t *testing.T) {
	keys := newClientKeys(t, 2)
	w, file := newKeyWorld(t, keys)
	w.as.Set(func(k *fakeas.Knobs) { k.AccessTokenLifetime = 2 * time.Second })
	w.load(keySite(file, alwaysRefresh))
	browsers, stop := w.keepRefreshing()
	for _, order := range []clientKeys{{keys[1], keys[0]}, {keys[0], keys[1]}, {keys[1]}} {
		writeSettled(t, file, order.pem(t))
		w.awaitRefreshes(6)
		if got, want := publishedKeyIDs(t, browsers[0]), len(order); len(got) != want {
			t.Errorf("got published keys %v, want %d", got, want)
		}
	}
	stop()
	a := browsers[0].send(http.MethodPost, "/oauth2/logout", navigation.Clone())
	if a.status != http.StatusSeeOther {
		t.Errorf("logout: got status %d, want 303", a.status)
	}
	w.waitFor("revocation", func() bool { return len(w.as.Log(fakeas.EndpointRevoke)) > 0 })
	for _, e := range w.as.Log(fakeas.EndpointToken, fakeas.EndpointRevoke) {
		if e.AuthMethod != fakeas.AuthPrivateKeyJWT || e.Status != http.StatusOK {
			t.Errorf("got a request with %s, status %d (%s); want private_key_jwt, 200", e.AuthMethod, e.Status, e.Reason)
		}
		if assertion := e.Form.Get("client_assertion"); strings.Contains(captured.String(), assertion) {
			t.Error("got an assertion in the log")
		}
	}
	if refused := w.as.Stats().Refused; len(refused) != 0 {
		t.Errorf("got refusals %v, want none", refused)
	}
	for _, line := range strings.Split(keys.pem(t), "\n") {
		if len(line) > 40 && !strings.HasPrefix(line, "---") && strings.Contains(captured.String(), line) {
			t.Error("got a private key in the log")
		}
	}
	w.wantNoSecrets("the log", captured.String())
}

// A file with an assertion is replaced under load, as a whole or in place, also by one that
// is half written, and it may be missing for a moment. No request fails.
func TestClientAssertionIsReplacedUnderLoad(t *testing.T) {
	keys := newClientKeys(t, 1)
	w, _ := newKeyWorld(t, keys)
	w.as.AddClient(fakeas.Client{
		ID: "app", AuthMethod: fakeas.AuthPrivateKeyJWT, SameAssertion: true, RedirectURIs: []string{w.origin + "/oauth2/callback"},
	})
	file := filepath.Join(t.TempDir(), "token")
	assertion := func() string { return signedAssertion(t, w.as.URL, keys) }
	writeSettled(t, file, assertion())
	w.load(strings.Replace(keySite("", alwaysRefresh), "client_key ", "client_assertion "+file, 1))
	_, stop := w.keepRefreshing()
	for _, replace := range []func() error{
		func() error { writeSettled(t, file, assertion()); return nil },
		func() error { return os.WriteFile(file, []byte(assertion()[:100]), 0o600) },
		func() error { return os.WriteFile(file, []byte(assertion()), 0o600) },
		func() error { return os.Remove(file) },
		func() error { writeSettled(t, file, assertion()); return nil },
	} {
		if err := replace(); err != nil {
			t.Fatal(err)
		}
		w.awaitRefreshes(6)
	}
	latest, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	w.waitFor("request with the last assertion", func() bool {
		log := w.as.Log(fakeas.EndpointToken)
		return log[len(log)-1].Form.Get("client_assertion") == string(latest)
	})
	stop()
	if refused := w.as.Stats().Refused; len(refused) != 0 {
		t.Errorf("got refusals %v, want none", refused)
	}
}

// signedAssertion returns an assertion of the client app for an issuer.
func signedAssertion(t *testing.T, issuer string, keys clientKeys) string {
	t.Helper()
	now := time.Now()
	token := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
		"iss": "app", "sub": "app", "aud": issuer, "iat": now.Unix(), "exp": now.Add(4 * time.Minute).Unix(), "jti": rand.Text(),
	})
	token.Header["typ"] = "client-authentication+jwt"
	for kid := range keys.public(t) {
		token.Header["kid"] = kid
	}
	signed, err := token.SignedString(keys[0])
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// alwaysRefresh makes each request refresh the token.
const alwaysRefresh = "refresh_timeout 50s\nrefresh_if_older * 0s"

// keepRefreshing lets three browsers send requests until stop is called. No request may
// fail.
func (w *world) keepRefreshing() (browsers []*browser, stop func()) {
	w.t.Helper()
	stopped := make(chan struct{})
	var load sync.WaitGroup
	for range 3 {
		b := newBrowser(w.t, w.origin)
		b.login("/")
		browsers = append(browsers, b)
		load.Go(func() {
			for {
				select {
				case <-stopped:
					return
				default:
				}
				if a := b.fetch("/"); a.status != http.StatusOK {
					w.t.Errorf("got status %d: %s, want 200", a.status, a.body)
					return
				}
			}
		})
	}
	return browsers, func() {
		close(stopped)
		load.Wait()
	}
}

// awaitRefreshes waits for n more refreshes, unless the test has failed.
func (w *world) awaitRefreshes(n int) {
	w.t.Helper()
	want := w.as.Stats().Grants[fakeas.GrantRefresh] + n
	w.waitFor("more refreshes", func() bool { return w.as.Stats().Grants[fakeas.GrantRefresh] >= want || w.t.Failed() })
}

// waitFor waits for an event.
func (w *world) waitFor(event string, ok func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("got no %s", event)
		}
	}
}

// publishedKeyIDs returns the key IDs of jwks.json.
func publishedKeyIDs(t *testing.T, b *browser) (ids []string) {
	t.Helper()
	b = newBrowser(t, b.site) // the other one is in use
	a := b.fetch("/oauth2/jwks.json")
	var set jose.JSONWebKeySet
	if err := json.Unmarshal([]byte(a.body), &set); err != nil {
		t.Fatalf("got status %d, error %v in %s; want a key set", a.status, err, a.body)
	}
	for _, k := range set.Keys {
		ids = append(ids, k.KeyID)
	}
	return ids
}

// A start and a reload refuse a key or an assertion that cannot be used. The error names
// the option and the file. The former configuration stays.
func TestUnusableCredentialFilesAreRefusedAtStart(t *testing.T) {
	keys := newClientKeys(t, 1)
	w, file := newKeyWorld(t, keys)
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path := func(name, content string) string {
		writeSettled(t, filepath.Join(dir, name), content)
		return filepath.Join(dir, name)
	}
	half := keys.pem(t)[:80]
	assertion := func(file string) string {
		return strings.Replace(keySite("", ""), "client_key ", "client_assertion "+file, 1)
	}
	for name, tc := range map[string]struct{ site, want string }{
		"missing":           {keySite(dir+"/none.pem", ""), "client_key " + dir + "/none.pem: no such file"},
		"half":              {keySite(path("half.pem", half), ""), "client_key " + dir + "/half.pem: holds a PEM block that is damaged or incomplete"},
		"weak":              {keySite(path("weak.pem", keyPEM(t, weak)), ""), "client_key " + dir + "/weak.pem: is an RSA key of 1024 bits"},
		"missing assertion": {assertion(dir + "/none"), "client_assertion " + dir + "/none: no such file"},
		"empty assertion":   {assertion(path("empty", "\n")), "client_assertion " + dir + "/empty: is empty"},
		"short secret": {
			site("token_endpoint_auth_method client_secret_jwt", ""), "client_secret: client_secret_jwt needs a secret of at least 32 bytes",
		},
	} {
		t.Run(name, func(t *testing.T) {
			for which, err := range map[string]error{"validate": w.validate(tc.site), "load": w.tryLoad(tc.site)} {
				if err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("%s: got error %v, want %q", which, err, tc.want)
				}
			}
		})
	}
	// A reload shares the client, and refuses the file nevertheless.
	w.load(keySite(file, ""))
	b := newBrowser(t, w.origin)
	b.login("/")
	writeSettled(t, file, half)
	if err := w.tryLoad(keySite(file, "idle_timeout 1h")); err == nil || !strings.Contains(err.Error(), "client_key "+file) {
		t.Errorf("reload: got error %v, want one with client_key and the file", err)
	}
	if a := newBrowser(t, w.origin).login("/"); a.status != http.StatusOK {
		t.Errorf("login with the former key: got status %d, want 200", a.status)
	}
}

// A file that cannot be used is logged once a minute, with the option and the file. So is
// its end. The log has nothing of the content.
func TestUnusableCredentialFileIsLoggedOnceAMinute(t *testing.T) {
	file := filepath.Join(t.TempDir(), "client.pem")
	first, second := newClientKeys(t, 1), newClientKeys(t, 2)
	writeSettled(t, file, first.pem(t))
	synctest.Test(t, func(t *testing.T) {
		core, logs := zapobserver.New(zapcore.DebugLevel)
		client, err := oauth.New(oauth.Config{Issuer: "https://idp.test", ClientID: "app", ClientKeyFile: file})
		if err != nil {
			t.Fatal(err)
		}
		h := &Handler{ClientKey: file, logger: zap.New(core)}
		tasks := &keyTasks{}
		if err := h.watchCredentials(client, tasks); err != nil {
			t.Fatal(err)
		}
		tasks.start()
		defer tasks.stop()
		wantLevels := func(step string, want ...string) {
			t.Helper()
			synctest.Wait()
			var got []string
			for _, entry := range logs.TakeAll() {
				got = append(got, entry.Level.String())
				if text := fieldsText(entry); entry.Level == zapcore.ErrorLevel && !strings.Contains(text, "client_key "+file) || strings.Contains(text, "MIGH") {
					t.Errorf("%s: got log fields %s, want the option and the file alone", step, text)
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s: log levels (-want +got):\n%s", step, diff)
			}
		}
		time.Sleep(time.Hour)
		wantLevels("unchanged")
		if err := os.WriteFile(file, []byte(second.pem(t)[:100]), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3*time.Minute - time.Second)
		wantLevels("damaged for three minutes", "error", "error", "error")
		if err := os.WriteFile(file, []byte(second.pem(t)), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		wantLevels("replaced", "info", "info")
	})
}

// A private key that every user of the host can read is warned about.
func TestExposedClientKeyIsWarnedAbout(t *testing.T) {
	keys := newClientKeys(t, 1)
	w, file := newKeyWorld(t, keys)
	for mode, want := range map[os.FileMode]int{0o600: 0, 0o640: 0, 0o644: 1} {
		captured.reset()
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		w.load(keySite(file, fmt.Sprintf("idle_timeout %ds", 1000+int(mode))))
		if got := captured.lines(`"level":"warn"`, "client_key can be read by every user"); len(got) != want {
			t.Errorf("mode %o: got %d warnings, want %d", mode, len(got), want)
		}
	}
}

// The assertion of another program is sent. Its expiry is logged and does not prevent a
// start.
func TestExpiredAssertionDoesNotPreventAStart(t *testing.T) {
	keys := newClientKeys(t, 1)
	w, _ := newKeyWorld(t, keys)
	part := base64.RawURLEncoding.EncodeToString
	file := filepath.Join(t.TempDir(), "token")
	writeSettled(t, file, part([]byte(`{"alg":"ES256"}`))+"."+part([]byte(`{"exp":1000}`))+"."+part([]byte("canary-of-the-signature")))
	w.load(strings.Replace(keySite("", ""), "client_key ", "client_assertion "+file+" jwt-spiffe", 1))
	captured.wait(t, `"level":"error"`, "client_assertion "+file, "expired")
	b := newBrowser(t, w.origin)
	callback := b.startLogin("/")
	if a := b.open(callback); a.status != http.StatusBadGateway {
		t.Errorf("login: got status %d, want 502", a.status)
	}
	if n := len(w.as.Log(fakeas.EndpointToken)); n != 0 {
		t.Errorf("got %d token requests, want none", n)
	}
	for _, text := range []string{part([]byte("canary-of-the-signature")), part([]byte(`{"exp":1000}`))} {
		if captured.lines(text) != nil {
			t.Error("got a part of the assertion in the log")
		}
	}
}
