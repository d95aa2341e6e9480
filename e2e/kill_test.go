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

// TestKill ends Caddy as a power cut would, right after tokens were rotated: every session goes on. What then lies on the
// disk tells nothing, and neither does the log, which has also seen a logout.
func TestKill(t *testing.T) {
	t.Parallel()
	const users = 5
	site := newSite(t)
	as, s := startFake(t, site+"/oauth2/callback")
	as.SetUser(fakeas.User{Name: fakeas.DefaultUser, Subject: canarySubject, Claims: map[string]any{"email": canaryEmail}})
	setLife(as, shortLife)
	app := echo.Start(t, echo.Options{})
	caddy := caddyserver.Start(t, protected(site, s, "scope openid email offline_access", app))
	clients, tokens := make([]*client.Client, users), make([]string, users)
	for i := range clients {
		clients[i] = login(t, s, site+"/")
	}
	setLife(as, longLife)
	leaver := login(t, s, site+"/")
	if _, err := leaver.Submit(t.Context(), navigate(t, leaver, site+"/oauth2/logout")); err != nil {
		t.Fatal(err)
	}
	for i, c := range clients {
		eventually(t, "refreshed token", func() bool {
			tokens[i] = bearer(fetch(t, c, site+"/"))
			return livesLong(as, tokens[i])
		})
	}
	caddy.Kill(t)
	caddy.Restart(t)
	for i, c := range clients {
		if resp := fetch(t, c, site+"/"); bearer(resp) != tokens[i] {
			t.Errorf("session %d after the kill: %v, want the token of before", i, resp)
		}
	}
	if stats := as.Stats(); len(stats.RedeemedTwice) != 0 {
		t.Errorf("refresh tokens were redeemed twice: %v", stats.RedeemedTwice)
	}
	caddy.Kill(t)

	hidden := needles(t, as)
	for _, c := range clients {
		_, value, _ := strings.Cut(cookieOf(t, c, site), "=")
		raw, err := base64.RawURLEncoding.DecodeString(value)
		if err != nil {
			t.Fatal(err)
		}
		hidden["session cookie "+value[:8]] = []byte(value)
		hidden["decoded session cookie "+value[:8]] = raw
	}
	logged := map[string][]byte{"client secret": []byte(s.ClientSecret)}
	for name, needle := range hidden {
		if !strings.HasPrefix(name, "user's") {
			logged[name] = needle
		}
	}
	hidden["client secret"] = []byte(s.ClientSecret)
	store := filepath.Join(caddy.DataDir, "oauth_session", "sessions.db")
	content, err := os.ReadFile(store)
	if err != nil {
		t.Fatal(err)
	}
	if len(content) < users*200 {
		t.Fatalf("the store has %d bytes, too few for the sessions", len(content))
	}
	scan(t, "the log", []byte(caddy.Log(t)), logged)
	scanDir(t, caddy.DataDir, hidden)
	for name, needle := range hidden {
		if !contains(append(content[:len(content)/2:len(content)/2], needle...), needle) {
			t.Errorf("the scan does not see %s", name)
		}
	}
}

// TestKillDuringRefresh ends Caddy after the server has rotated the refresh token and before the answer has come: that
// session cannot be saved, but a navigation leads through an unseen login.
func TestKillDuringRefresh(t *testing.T) {
	t.Parallel()
	site := newSite(t)
	p := op.StartOIDCProvider(t, op.OIDCProviderOptions{
		RedirectURIs: []string{site + "/oauth2/callback"}, AccessTokenLifetime: heldLife,
	})
	caddy := caddyserver.Start(t, protected(site, &p.Server, "refresh_timeout 50s", echo.Start(t, echo.Options{})))
	p.Fault(t, op.Fault{GrantType: "refresh_token", Hold: true, After: true})
	c := login(t, &p.Server, site+"/")
	expireDuring(t, p, c, site+"/early")
	caddy.Kill(t)
	p.Release(t)
	p.SetAccessTokenLifetime(t, longLife)
	caddy.Restart(t)
	page, err := c.Visit(t.Context(), site+"/wanted?q=1")
	if err != nil {
		t.Fatal(err)
	}
	landed(t, page, site+"/wanted?q=1")
	stats := p.Stats(t)
	if stats.RepeatedRefreshTokens != 1 || stats.Requests["GET /auth"] != 2 {
		t.Errorf("want the lost token to be tried once, and one login: %+v", stats)
	}
	if resp := fetch(t, c, site+"/"); bearer(resp) == "" {
		t.Errorf("after the login: %v", resp)
	}
}

func livesLong(as *fakeas.Server, token string) bool {
	return slices.ContainsFunc(as.Tokens(), func(issued fakeas.Issued) bool {
		return issued.Value == token && time.Until(issued.Expires) > longLife/2
	})
}

// needles are the secrets of the authorization server, and its user.
func needles(t *testing.T, as *fakeas.Server) map[string][]byte {
	t.Helper()
	found := map[string][]byte{"user's subject": []byte(canarySubject), "user's email": []byte(canaryEmail)}
	kinds := map[fakeas.Kind]int{}
	for _, issued := range as.Tokens() {
		kinds[issued.Kind]++
		value := issued.Value
		found[string(issued.Kind)+" "+value[len(value)-8:]] = []byte(value)
	}
	for _, kind := range []fakeas.Kind{fakeas.KindCode, fakeas.KindAccess, fakeas.KindRefresh, fakeas.KindID} {
		if kinds[kind] == 0 {
			t.Errorf("the server has issued no %s", kind)
		}
	}
	return found
}

func scanDir(t *testing.T, dir string, needles map[string][]byte) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		files++
		content, err := os.ReadFile(path)
		scan(t, filepath.Base(path), content, needles)
		return err
	})
	if err != nil || files < 2 {
		t.Fatalf("looked into %d files, want the store and the key at least: %v", files, err)
	}
}

func scan(t *testing.T, where string, content []byte, needles map[string][]byte) {
	t.Helper()
	for name, needle := range needles {
		if contains(content, needle) {
			t.Errorf("%s holds a %s", where, name)
		}
	}
}

// contains looks for the bytes as they are and in the encodings that a record could hold them in.
func contains(content, needle []byte) bool {
	if bytes.Contains(content, needle) {
		return true
	}
	for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		// Whole groups of three bytes, whatever stands before them.
		for skip := range 3 {
			part := needle[skip:]
			part = part[:len(part)/3*3]
			if bytes.Contains(content, []byte(encoding.EncodeToString(part))) {
				return true
			}
		}
	}
	return false
}
