package fakeas

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
)

// token serves the token endpoint.
func (s *Server) token(c *call) answer {
	a := s.tokenAnswer(c)
	if c.knobs.FormAnswers {
		return a.asForm()
	}
	return a
}

func (s *Server) tokenAnswer(c *call) answer {
	c.form = c.r.PostForm
	grant := c.form.Get("grant_type")
	if refused := checkTokenRequest(c); refused != nil {
		return refused.answer()
	}
	client, refused := s.authenticate(c)
	if refused != nil {
		if c.knobs.ConsumeOnFailedAuth {
			s.spendGrant(c)
		}
		return refused.answer()
	}
	s.sleep(c.knobs.LatencyBefore)
	var body []byte
	switch grant {
	case GrantCode:
		body, refused = s.redeemCode(c, client)
	case GrantRefresh:
		body, refused = s.refresh(c, client)
	default:
		refused = refuse(http.StatusBadRequest, "unsupported_grant_type", "unknown grant_type")
	}
	s.sleep(c.knobs.LatencyAfter)
	if refused != nil {
		return refused.answer()
	}
	a := newAnswer(http.StatusOK, "application/json", string(body))
	a.header.Set("Cache-Control", "no-store")
	return a
}

// checkTokenRequest checks method, content type and parameters of a form request
// (RFC 6749, section 3.2).
func checkTokenRequest(c *call) *refusal {
	contentType, _, _ := strings.Cut(c.r.Header.Get("Content-Type"), ";")
	switch {
	case c.r.Method != http.MethodPost:
		return refuse(http.StatusMethodNotAllowed, "invalid_request", "POST is required")
	case strings.TrimSpace(contentType) != "application/x-www-form-urlencoded":
		return refuse(http.StatusBadRequest, "invalid_request", "not a form")
	}
	for name, values := range c.form {
		if len(values) > 1 && name != "resource" {
			return refuse(http.StatusBadRequest, "invalid_request", "parameter "+name+" is repeated")
		}
	}
	for _, name := range []string{"client_secret", "code", "code_verifier", "refresh_token"} {
		if c.r.URL.Query().Has(name) {
			return refuse(http.StatusBadRequest, "invalid_request", name+" is in the URL")
		}
	}
	return nil
}

// spendGrant revokes the code or refresh token of a failed request.
func (s *Server) spendGrant(c *call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for kind, name := range map[Kind]string{KindCode: "code", KindRefresh: "refresh_token"} {
		if t := s.ledger.find(kind, c.form.Get(name)); t != nil {
			t.Revoked = true
		}
	}
}

func (s *Server) redeemCode(c *call, client Client) ([]byte, *refusal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	invalidGrant := func(reason string) ([]byte, *refusal) {
		return nil, refuse(http.StatusBadRequest, "invalid_grant", reason)
	}
	t := s.ledger.find(KindCode, c.form.Get("code"))
	if t == nil || t.ClientID != client.ID {
		return invalidGrant("unknown code")
	}
	t.Presented++
	if t.Redeemed > 0 {
		// RFC 6749, section 4.1.2: revoke the tokens issued for the code.
		s.ledger.counts.CodeReuses++
		s.ledger.revoke(t.family, KindRefresh, KindAccess)
		return invalidGrant("code was already redeemed")
	}
	sum := sha256.Sum256([]byte(c.form.Get("code_verifier")))
	switch {
	case t.Revoked:
		return invalidGrant("code was consumed by a failed request")
	case t.expired():
		return invalidGrant("code has expired")
	case t.code.redirectURI != c.form.Get("redirect_uri"):
		return invalidGrant("redirect_uri is not that of the authorization request")
	case t.code.challenge != base64.RawURLEncoding.EncodeToString(sum[:]):
		return invalidGrant("wrong code_verifier")
	case s.user(t.User).Disabled:
		return invalidGrant("the user is disabled")
	}
	t.Redeemed++
	if c.knobs.OneFamilyPerUser {
		s.endOtherFamilies(t.family)
	}
	return s.issue(c, GrantCode, t.family, t.family.scope)
}

// endOtherFamilies needs s.mu.
func (s *Server) endOtherFamilies(keep *family) {
	for _, f := range s.ledger.families {
		if f != keep && f.user == keep.user && f.client.ID == keep.client.ID {
			s.ledger.revoke(f, KindRefresh)
		}
	}
}

// issue returns the successful answer to a grant. It needs s.mu.
func (s *Server) issue(c *call, grant string, f *family, scope []string) ([]byte, *refusal) {
	k := c.knobs
	edit, idEdit := k.LoginAnswer, k.LoginIDToken
	if grant == GrantRefresh {
		edit, idEdit = k.RefreshAnswer, k.RefreshIDToken
	}
	if k.RefreshKillsAccessToken {
		s.ledger.revoke(f, KindAccess)
	}
	access, err := s.accessToken(k, f, scope)
	if err != nil {
		return nil, refuse(http.StatusInternalServerError, "server_error", err.Error())
	}
	m := map[string]any{
		"access_token": access,
		"token_type":   "Bearer",
		"expires_in":   int64(k.AccessTokenLifetime.Seconds()),
		"scope":        strings.Join(scope, " "),
	}
	if refresh := s.refreshToken(k, grant, f); refresh != "" {
		m["refresh_token"] = refresh
	}
	if slices.Contains(f.scope, "openid") {
		if m["id_token"], err = s.idToken(k, grant, f, access, idEdit); err != nil {
			return nil, refuse(http.StatusInternalServerError, "server_error", err.Error())
		}
	}
	edit.apply(m)
	if k.Mutate != nil {
		k.Mutate(grant, m)
	}
	body, err := json.Marshal(m)
	if err != nil {
		return nil, refuse(http.StatusInternalServerError, "server_error", "encoding the answer: "+err.Error())
	}
	s.ledger.counts.Granted[grant]++
	return body, nil
}
