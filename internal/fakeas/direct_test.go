package fakeas

import "testing"

func TestLogInIssuesTokensUnderTheRotationRules(t *testing.T) {
	g := newRig(t)
	login, err := g.as.LogIn(g.client.ID, "carol", "openid")
	if err != nil {
		t.Fatal(err)
	}
	if user, ok := g.as.ValidAccessToken(login.AccessToken); !ok || user != "carol" {
		t.Errorf("ValidAccessToken: got %q, %t, want carol, true", user, ok)
	}
	if login.IDToken == "" || login.SID == "" {
		t.Errorf("got ID token %q and sid %q, want both", login.IDToken, login.SID)
	}
	g.wantRefreshed(login.RefreshToken)
	g.wantError(g.refresh(login.RefreshToken), 400, "invalid_grant")
	if stats := g.as.Stats(); stats.Reuses != 1 || stats.Granted[GrantRefresh] != 1 {
		t.Errorf("got stats %+v, want one refresh and one reuse", stats)
	}
}

func TestLogInRefusesUnknownClient(t *testing.T) {
	if _, err := newRig(t).as.LogIn("unknown", "carol", "openid"); err == nil {
		t.Error("got no error, want one")
	}
}
