package fakeas

import (
	"net/http"
	"slices"
	"strings"
	"time"
)

// decision is the result of the rotation rules for a refresh token.
type decision int

const (
	redeem       decision = iota
	repeatAnswer          // of its redemption
	refuseReuse
)

// applyRotation applies the rotation rules. It needs s.mu.
func (k Knobs) applyRotation(t *secret) decision {
	age := t.family.generation - t.Generation
	since := time.Since(t.redeemedAt)
	switch {
	case k.Rotation == RotateNever || k.Rotation == RotateSame:
		return redeem
	case age == 0:
		return redeem
	case k.Rotation == RotateOverlap && age <= k.Overlap &&
		(k.OverlapFor == 0 || t.Redeemed == 0 || since <= k.OverlapFor):
		return redeem
	case k.Rotation == RotateGrace && t.lastAnswer != nil && since <= k.Grace:
		return repeatAnswer
	}
	return refuseReuse
}

// refresh serves the refresh_token grant.
func (s *Server) refresh(c *call, client Client) ([]byte, *refusal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := c.knobs
	t := s.ledger.find(KindRefresh, c.form.Get("refresh_token"))
	if t == nil || t.ClientID != client.ID {
		return nil, k.refuseRefresh("unknown refresh token")
	}
	scope, refused := checkRefreshParameters(c, t.family)
	if refused != nil {
		return nil, refused
	}
	rotation := k.applyRotation(t)
	if rotation == refuseReuse {
		s.ledger.counts.Reuses++
		if k.ReuseRevokes {
			s.ledger.revoke(t.family, KindRefresh, KindAccess)
		}
		return nil, k.refuseRefresh("refresh token was already redeemed")
	}
	switch {
	case t.Revoked:
		return nil, k.refuseRefresh("refresh token was revoked")
	case t.expired():
		return nil, k.refuseRefresh("refresh token has expired")
	case s.user(t.User).Disabled:
		return nil, k.refuseRefresh("the user is disabled")
	case rotation == repeatAnswer:
		return t.lastAnswer, nil
	}
	t.Redeemed++
	if t.redeemedAt.IsZero() {
		t.redeemedAt = time.Now() // Grace and OverlapFor start at the first redemption
	}
	body, refused := s.issue(c, GrantRefresh, t.family, scope)
	t.lastAnswer = body
	return body, refused
}

// refuseRefresh refuses a dead refresh token with the DeadTokenError.
func (k Knobs) refuseRefresh(reason string) *refusal {
	code := k.DeadTokenError
	if code == "" {
		code = "invalid_grant"
	}
	return refuse(http.StatusBadRequest, code, reason)
}

// checkRefreshParameters returns the scope of the new access token, which may
// be narrower than the granted one (RFC 6749, section 6).
func checkRefreshParameters(c *call, f *family) ([]string, *refusal) {
	for name, rule := range map[string]Presence{"scope": c.knobs.RefreshScope, "audience": c.knobs.RefreshAudience} {
		switch has := c.form.Has(name); {
		case rule == Required && !has:
			return nil, refuse(http.StatusBadRequest, "invalid_request", "parameter "+name+" is missing")
		case rule == Forbidden && has:
			return nil, refuse(http.StatusBadRequest, "invalid_request", "parameter "+name+" is not allowed")
		}
	}
	if !c.form.Has("scope") {
		return f.scope, nil
	}
	scope := strings.Fields(c.form.Get("scope"))
	for _, one := range scope {
		if !slices.Contains(f.scope, one) {
			return nil, refuse(http.StatusBadRequest, "invalid_scope", "scope is wider than granted")
		}
	}
	return scope, nil
}

// refreshToken returns the refresh token for an answer, or "". It needs s.mu.
func (s *Server) refreshToken(k Knobs, grant string, f *family) string {
	if !f.refreshable {
		return ""
	}
	if k.RefreshTokenLifetime > 0 && (f.generation == 0 || k.RefreshTokenRolling) {
		f.refreshExpires = time.Now().Add(k.RefreshTokenLifetime)
	}
	if grant == GrantRefresh && (k.Rotation == RotateNever || k.Rotation == RotateSame) {
		return s.keepRefreshToken(k, f)
	}
	f.generation++
	t := s.ledger.add(KindRefresh, canary("RT_"), f, f.refreshExpires)
	t.Generation = f.generation
	return t.Value
}

// keepRefreshToken extends the family's newest refresh token to the current
// expiry. It returns the token for the answer: "" unless Rotation is RotateSame.
func (s *Server) keepRefreshToken(k Knobs, f *family) string {
	for _, t := range slices.Backward(s.ledger.order) {
		if t.family == f && t.Kind == KindRefresh {
			t.Expires = f.refreshExpires
			if k.Rotation == RotateSame {
				return t.Value
			}
			break
		}
	}
	return ""
}
