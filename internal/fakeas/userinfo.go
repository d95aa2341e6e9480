package fakeas

import (
	"net/http"
	"strings"
)

// userInfo serves the UserInfo endpoint (OpenID Connect Core, section 5.3). A signed
// answer has no iss, aud or times, which are optional.
func (s *Server) userInfo(c *call) answer {
	token, ok := strings.CutPrefix(c.r.Header.Get("Authorization"), "Bearer ")
	if c.knobs.UserInfoPost {
		token, ok = c.r.PostForm.Get("access_token"), c.r.Header.Get("Authorization") == ""
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.ledger.find(KindAccess, token)
	if !ok || t == nil || t.Revoked || t.expired() {
		a := page(http.StatusUnauthorized, "unauthorized")
		a.header.Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		a.code, a.reason = "invalid_token", "no valid access token"
		return a
	}
	c.entry.ClientID = t.ClientID
	u := s.user(t.User)
	m := s.claims(c.knobs, u)
	m["sub"] = u.Subject
	c.knobs.UserInfo.apply(m)
	if c.knobs.UserInfoFormat != FormatJWT {
		return jsonAnswer(http.StatusOK, m)
	}
	signed, err := s.sign(c.knobs, "JWT", m, &family{client: s.clients[t.ClientID]}, "", c.knobs.UserInfoToken)
	if err != nil {
		return page(http.StatusInternalServerError, err.Error())
	}
	return newAnswer(http.StatusOK, "application/jwt", signed)
}
