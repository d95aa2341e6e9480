package handler

import (
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// TestClaimsComeFromEveryKindOfUserInfo: signed or plain, asked by GET or by POST.
func TestClaimsComeFromEveryKindOfUserInfo(t *testing.T) {
	for name, tt := range map[string]struct {
		method string
		knob   func(*fakeas.Knobs)
	}{
		"plain":        {"", func(*fakeas.Knobs) {}},
		"post":         {"post", func(k *fakeas.Knobs) { k.UserInfoPost = true }},
		"signed":       {"get", func(k *fakeas.Knobs) { k.UserInfoFormat = fakeas.FormatJWT }},
		"signed, post": {"post", func(k *fakeas.Knobs) { k.UserInfoFormat, k.UserInfoPost = fakeas.FormatJWT, true }},
		"for us, by iss": {"", func(k *fakeas.Knobs) {
			k.UserInfoFormat = fakeas.FormatJWT
			k.UserInfoToken.Claims.Set = map[string]any{"aud": []string{"app"}, "exp": 4102444800}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, func(s *setup) { s.handler.UserInfo, s.oauth.UserInfoMethod = true, tt.method })
			g.as.Set(func(k *fakeas.Knobs) {
				k.UserInfo.Set = map[string]any{"department": "sales"}
				tt.knob(k)
			})
			if _, claims := g.claimsOf(g.loggedIn().jar.get(sessionCookie).Value); claims["department"] != "sales" || claims["exp"] != nil {
				t.Errorf("got claims %v, want the department from UserInfo and no times of the answer", claims)
			}
		})
	}
}

// TestUserInfoThatIsNotOursLogsNobodyIn: the page asks the operator to act if only an
// operator can help.
func TestUserInfoThatIsNotOursLogsNobodyIn(t *testing.T) {
	for name, tt := range map[string]struct {
		edit fakeas.TokenEdit
		code string
	}{
		"other key":       {defect(fakeas.DefectKey), "login_failed"},
		"unsigned":        {defect(fakeas.DefectNone), "login_failed"},
		"other user":      {claim("sub", "mallory"), "login_failed"},
		"other client":    {claim("aud", "other"), "login_failed"},
		"other issuer":    {claim("iss", "https://evil.test"), "login_failed"},
		"client's secret": {defect(fakeas.DefectHMACSecret), "misconfigured"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, func(s *setup) { s.handler.UserInfo = true })
			g.as.Set(func(k *fakeas.Knobs) { k.UserInfoFormat, k.UserInfoToken = fakeas.FormatJWT, tt.edit })
			b := g.browser()
			if a := b.open("/wanted"); a.status != 502 || !strings.Contains(a.body, tt.code) || b.jar.get(sessionCookie) != nil || g.app.count() != 0 {
				t.Errorf("got status %d: %s, want 502 %s and no session", a.status, a.body, tt.code)
			}
		})
	}
}
