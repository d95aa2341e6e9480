package fakeas

import "testing"

func TestLogInIsALogin(t *testing.T) {
	g := newRig(t)
	login, err := g.as.LogIn(g.client.ID, "carol", "openid")
	if err != nil {
		t.Fatal(err)
	}
	if user, ok := g.as.ValidAccessToken(login.AccessToken); !ok || user != "carol" {
		t.Errorf("the access token is good: %v, of %q", ok, user)
	}
	if login.IDToken == "" || login.SID == "" {
		t.Error("there is no ID token, or no sid")
	}
	g.wantRefreshed(login.RefreshToken)
	g.wantError(g.refresh(login.RefreshToken), 400, "invalid_grant")
	if stats := g.as.Stats(); stats.Reuses != 1 || stats.Granted[GrantRefresh] != 1 {
		t.Errorf("the refresh token is not under the rules: %+v", stats)
	}
}

func TestLogInNeedsAClient(t *testing.T) {
	if _, err := newRig(t).as.LogIn("nobody", "carol", "openid"); err == nil {
		t.Error("an unknown client got tokens")
	}
}
