package e2e

import (
	"bytes"
	"encoding/base64"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/e2e/caddyserver"
	"github.com/oauth-session/caddy-oauth-session/e2e/client"
	"github.com/oauth-session/caddy-oauth-session/e2e/op"
	"github.com/oauth-session/caddy-oauth-session/internal/echo"
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

const (
	canarySubject = "subject-canary-7d1f"
	canaryEmail   = "canary.of.email@example.test"
)

// TestKill kills Caddy right after refreshes, like a power cut. All sessions continue. The data directory contains no tokens
// and no user data, and the log, which includes a logout, contains no tokens.
func TestKill(t *testing.T) {
	t.Parallel()
	const users = 5
	site := newSite(t)
	as, s := startFake(t, site+"/oauth2/callback")
	as.SetUser(fakeas.User{Name: fakeas.DefaultUser, Subject: canarySubject, Claims: map[string]any{"email": canaryEmail}})
	setAccessTokenLifetime(as, shortLife)
	app := echo.Start(t, echo.Options{})
	caddy := caddyserver.Start(t, protected(site, s, "scope openid email offline_access", app))
	clients, tokens := make([]*client.Client, users), make([]string, users)
	for i := range clients {
		clients[i] = login(t, s, site+"/")
	}
	setAccessTokenLifetime(as, longLife)
	leaver := login(t, s, site+"/")
	if _, err := leaver.Submit(t.Context(), navigate(t, leaver, site+"/oauth2/logout")); err != nil {
		t.Fatal(err)
	}
	for i, c := range clients {
		eventually(t, "refreshed token", func() bool {
			tokens[i] = bearer(fetch(t, c, site+"/"))
			return isLongLived(as, tokens[i])
		})
	}
	caddy.Kill(t)
	caddy.Restart(t)
	for i, c := range clients {
		if resp := fetch(t, c, site+"/"); bearer(resp) != tokens[i] {
			t.Errorf("session %d after the kill: got %v, want the former token", i, resp)
		}
	}
	if stats := as.Stats(); len(stats.RedeemedTwice) != 0 {
		t.Errorf("got tokens redeemed twice %v, want none", stats.RedeemedTwice)
	}
	caddy.Kill(t)

	absentOnDisk := issuedSecrets(t, as)
	for _, c := range clients {
		_, value, _ := strings.Cut(cookieOf(t, c, site), "=")
		raw, err := base64.RawURLEncoding.DecodeString(value)
		if err != nil {
			t.Fatal(err)
		}
		absentOnDisk["session cookie "+value[:8]] = []byte(value)
		absentOnDisk["decoded session cookie "+value[:8]] = raw
	}
	absentInLog := map[string][]byte{"client secret": []byte(s.ClientSecret)}
	for name, secret := range absentOnDisk {
		if !strings.HasPrefix(name, "user's") {
			absentInLog[name] = secret
		}
	}
	absentOnDisk["client secret"] = []byte(s.ClientSecret)
	store := filepath.Join(caddy.DataDir, "oauth_session", "sessions.db")
	content, err := os.ReadFile(store)
	if err != nil {
		t.Fatal(err)
	}
	if len(content) < users*200 {
		t.Fatalf("got a store of %d bytes, want at least %d", len(content), users*200)
	}
	wantAbsent(t, "the log", []byte(caddy.Log(t)), absentInLog)
	wantAbsentInDir(t, caddy.DataDir, absentOnDisk)
	for name, secret := range absentOnDisk { // shows that contains finds each secret
		if !contains(append(content[:len(content)/2:len(content)/2], secret...), secret) {
			t.Errorf("contains does not find the %s, want it found", name)
		}
	}
}

// TestKillDuringRefresh kills Caddy after the server has rotated the refresh token and before its answer. The session is
// lost, but a navigation leads through one login without a form.
func TestKillDuringRefresh(t *testing.T) {
	t.Parallel()
	site := newSite(t)
	p := op.StartOIDCProvider(t, op.OIDCProviderOptions{
		RedirectURIs: []string{site + "/oauth2/callback"}, AccessTokenLifetime: heldLife,
	})
	caddy := caddyserver.Start(t, protected(site, &p.Server, "refresh_timeout 50s", echo.Start(t, echo.Options{})))
	p.Fault(t, op.Fault{GrantType: "refresh_token", Hold: true, After: true})
	c := login(t, &p.Server, site+"/")
	expireDuringHeldRefresh(t, p, c, site+"/early")
	caddy.Kill(t)
	p.Release(t)
	p.SetAccessTokenLifetime(t, longLife)
	caddy.Restart(t)
	page, err := c.Visit(t.Context(), site+"/wanted?q=1")
	if err != nil {
		t.Fatal(err)
	}
	wantAppPage(t, page, site+"/wanted?q=1")
	stats := p.Stats(t)
	if stats.RepeatedRefreshTokens != 1 || stats.Requests["GET /auth"] != 2 {
		t.Errorf("got stats %+v, want one repeated refresh token and two logins", stats)
	}
	if resp := fetch(t, c, site+"/"); bearer(resp) == "" {
		t.Errorf("after the login: got %v, want the app's answer", resp)
	}
}

// isLongLived reports whether the server issued the token with longLife.
func isLongLived(as *fakeas.Server, token string) bool {
	return slices.ContainsFunc(as.Tokens(), func(issued fakeas.Issued) bool {
		return issued.Value == token && time.Until(issued.Expires) > longLife/2
	})
}

// issuedSecrets returns all codes and tokens of the authorization server and the user's data, by name.
func issuedSecrets(t *testing.T, as *fakeas.Server) map[string][]byte {
	t.Helper()
	secrets := map[string][]byte{"user's subject": []byte(canarySubject), "user's email": []byte(canaryEmail)}
	kinds := map[fakeas.Kind]int{}
	for _, issued := range as.Tokens() {
		kinds[issued.Kind]++
		value := issued.Value
		secrets[string(issued.Kind)+" "+value[len(value)-8:]] = []byte(value)
	}
	for _, kind := range []fakeas.Kind{fakeas.KindCode, fakeas.KindAccess, fakeas.KindRefresh, fakeas.KindID} {
		if kinds[kind] == 0 {
			t.Errorf("the server has issued no %s, want some", kind)
		}
	}
	return secrets
}

// wantAbsentInDir fails the test if a file below the directory contains a secret.
func wantAbsentInDir(t *testing.T, dir string, secrets map[string][]byte) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		files++
		content, err := os.ReadFile(path)
		wantAbsent(t, filepath.Base(path), content, secrets)
		return err
	})
	if err != nil || files < 2 {
		t.Fatalf("got %d files and error %v, want at least the store and the key", files, err)
	}
}

// wantAbsent fails the test if the content contains a secret.
func wantAbsent(t *testing.T, place string, content []byte, secrets map[string][]byte) {
	t.Helper()
	for name, secret := range secrets {
		if contains(content, secret) {
			t.Errorf("%s contains a %s, want none", place, name)
		}
	}
}

// contains reports whether the content contains the secret itself or a base64 encoding of it.
func contains(content, secret []byte) bool {
	if bytes.Contains(content, secret) {
		return true
	}
	for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		// Base64 encodes groups of three bytes. The secret may begin at any byte of a group.
		for skip := range 3 {
			part := secret[skip:]
			part = part[:len(part)/3*3]
			if bytes.Contains(content, []byte(encoding.EncodeToString(part))) {
				return true
			}
		}
	}
	return false
}
