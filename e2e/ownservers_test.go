package e2e

import (
	"os"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/op"
)

// TestHydra runs whole visits at Ory Hydra. SERVERS=1 enables it, since Hydra takes minutes to build. Hydra's logout tokens have
// no exp, and it refuses prompt=select_account.
func TestHydra(t *testing.T) {
	if os.Getenv("SERVERS") == "" {
		t.Skip("SERVERS is not set")
	}
	site := newSite(t)
	s := op.Hydra(t, site, shortLife)
	v := startVisited(t, site, s, "scope openid offline_access email")
	t.Run("another account", v.useOtherAccount)
	t.Run("another account after a logout", v.signOutFirst)
	t.Run("storm", v.storm)
	t.Run("logout at the server", v.logOutAtServer)
	t.Run("logout here", v.logOutHere)
	v.wantNoFailures(t)
}

// TestKeycloak runs whole visits at Keycloak, with Revoke Refresh Token on. KEYCLOAK=1 enables it, since Keycloak needs Java
// and Maven, and is large. Keycloak ignores prompt=select_account. With prompt=login, its page is for the same user and has a
// button to start over.
func TestKeycloak(t *testing.T) {
	if os.Getenv("KEYCLOAK") == "" {
		t.Skip("KEYCLOAK is not set")
	}
	site := newSite(t)
	k := op.Keycloak(t, site, shortLife)
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
	v.wantNoFailures(t)
}
