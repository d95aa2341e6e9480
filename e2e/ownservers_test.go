package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/caddyserver"
	"github.com/oauth-session/caddy-oauth-session/e2e/client"
	"github.com/oauth-session/caddy-oauth-session/e2e/op"
	"github.com/oauth-session/caddy-oauth-session/internal/echo"
)

// TestHydra runs whole visits at Ory Hydra. SERVERS=1 enables it, since Hydra takes minutes to build. Hydra's logout tokens have
// no exp, and it refuses prompt=select_account.
func TestHydra(t *testing.T) {
	if os.Getenv("SERVERS") == "" {
		t.Skip("SERVERS is not set")
	}
	site, keyed := newSite(t), newSite(t)
	s := op.Hydra(t, site, keyed, shortLife)
	v := startVisited(t, site, s, "scope openid offline_access email")
	t.Run("another account", v.useOtherAccount)
	t.Run("another account after a logout", v.signOutFirst)
	t.Run("storm", v.storm)
	t.Run("logout at the server", v.logOutAtServer)
	t.Run("logout here", v.logOutHere)
	// Hydra knows no other form of an assertion than the older one.
	t.Run("keys and posted answers", func(t *testing.T) {
		useKeysAndForms(t, s, keyed, "scope openid offline_access email\nassertion_audience token_endpoint")
	})
	v.wantNoFailures(t)
}

// TestKeycloak runs whole visits at Keycloak, with Revoke Refresh Token on. KEYCLOAK=1 enables it, since Keycloak needs Java
// and Maven, and is large. Keycloak ignores prompt=select_account. With prompt=login, its page is for the same user and has a
// button to start over.
func TestKeycloak(t *testing.T) {
	if os.Getenv("KEYCLOAK") == "" {
		t.Skip("KEYCLOAK is not set")
	}
	site, keyed := newSite(t), newSite(t)
	k := op.Keycloak(t, site, keyed, shortLife)
	v := startVisited(t, site, &k.Server, "scope openid email")
	v.startOver = k.RestartLogin
	t.Run("another account", v.useOtherAccount)
	t.Run("another account after a logout", v.signOutFirst)
	t.Run("storm", v.storm)
	t.Run("logout at the server", v.logOutAtServer)
	t.Run("logout here", v.logOutHere)
	t.Run("logout by the administrator", func(t *testing.T) {
		c, before := v.login(t), logoutsByServer(t, v.caddy)
		if err := k.LogOutUser(t.Context(), "bob"); err != nil {
			t.Fatal(err)
		}
		awaitSessionEnd(t, v.server, c, v.site)
		if n := logoutsByServer(t, v.caddy) - before; n < 1 {
			t.Errorf("got %d sessions ended by the server, want this one", n)
		}
		v.wantLoginForm(t, c)
	})
	t.Run("keys and posted answers", func(t *testing.T) { useKeysAndForms(t, &k.Server, keyed, "scope openid email") })
	v.wantNoFailures(t)
}

// useKeysAndForms runs a session of the client op.KeyedClient, which authenticates with private_key_jwt, at a server that
// posts its answers: login, refresh, logout. The code is in no URL.
func useKeysAndForms(t *testing.T, s *op.Server, site, options string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "client.pem")
	writeKeys(t, file, key)
	app := echo.Start(t, echo.Options{})
	caddyserver.Start(t, caddyserver.Config{Sites: block(site, fmt.Sprintf(
		"oauth_session {\nissuer %s\nclient_id %s\nclient_key %s\nresponse_mode form_post\nrefresh_timeout 50s\n%s\n}\nreverse_proxy %s",
		s.Issuer, op.KeyedClient, file, options, app.Addr()))})
	c := client.New("bob", s.Password)
	page, err := c.Visit(t.Context(), site+"/wanted?q=1")
	forms := 0
	for ; err == nil && page.URL.String() != site+"/wanted?q=1" && forms < 6; forms++ {
		for _, hop := range page.Via {
			if hop.URL.Query().Has("code") {
				t.Errorf("got the code in the URL %s, want it in a form", hop.URL.Redacted())
			}
		}
		page, err = c.Submit(t.Context(), page)
	}
	if err != nil {
		t.Fatalf("after %d forms: %v", forms, err)
	}
	wantAppPage(t, page, site+"/wanted?q=1")
	awaitNewBearer(t, c, site+"/", bearer(page))
	if page, err = c.Submit(t.Context(), navigate(t, c, site+"/oauth2/logout")); err != nil {
		t.Fatal(err)
	}
	if resp := fetch(t, c, site+"/"); resp.Status != http.StatusUnauthorized {
		t.Errorf("after the logout, which led to %v: got %v, want 401", page, resp)
	}
}
