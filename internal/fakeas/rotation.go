package fakeas

import (
	"net/http"
	"slices"
	"strings"
	"time"
)

// verdict is what the rotation rules say about a refresh token that came in.
type verdict int

const (
	fresh  verdict = iota // exchange it
	replay                // give the same answer again
	reused                // it is spent
)

// judge applies the rotation rules. It needs s.mu.
func (k Knobs) judge(t *secret) verdict {
	age := t.family.generation - t.Generation
	since := time.Since(t.redeemedAt)
	switch {
	case k.Rotation == RotateNever || k.Rotation == RotateSame:
		return fresh
	case age == 0:
		return fresh
	case k.Rotation == RotateOverlap && age <= k.Overlap &&
		(k.OverlapFor == 0 || t.Redeemed == 0 || since <= k.OverlapFor):
		return fresh
	case k.Rotation == RotateGrace && t.replay != nil && since <= k.Grace:
		return replay
	}
	return reused
}

// refresh is the refresh_token grant.
func (s *Server) refresh(c *call, client Client) ([]byte, *refusal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := c.knobs
	t := s.ledger.find(KindRefresh, c.form.Get("refresh_token"))
	if t == nil || t.ClientID != client.ID {
		return nil, k.dead("unknown refresh token")
	}
	scope, f := checkRefreshParameters(c, t.family)
	if f != nil {
		return nil, f
	}
	v := k.judge(t)
	if v == reused {
		s.ledger.counts.Reuses++
		if k.ReuseRevokes {
			s.ledger.revoke(t.family, KindRefresh, KindAccess)
		}
		return nil, k.dead("refresh token was already redeemed")
	}
	switch {
	case t.Revoked:
		return nil, k.dead("refresh token was revoked")
	case t.expired():
		return nil, k.dead("refresh token has expired")
	case s.user(t.User).Disabled:
		return nil, k.dead("the user is disabled")
	case v == replay:
		return t.replay, nil
	}
	t.Redeemed++
	if t.redeemedAt.IsZero() {
		t.redeemedAt = time.Now() // grace and overlap count from the first time
	}
	body, f := s.issue(c, GrantRefresh, t.family, scope)
	t.replay = body
	return body, f
}

// dead refuses a refresh token that will never work again.
func (k Knobs) dead(reason string) *refusal {
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

// refreshToken returns the refresh token for an answer, or none. It needs
// s.mu.
func (s *Server) refreshToken(k Knobs, grant string, f *family) string {
	if !f.refreshable {
		return ""
	}
	if k.RefreshTokenLifetime > 0 && (f.generation == 0 || k.RefreshTokenRolling) {
		f.refreshEnds = time.Now().Add(k.RefreshTokenLifetime)
	}
	if grant == GrantRefresh && (k.Rotation == RotateNever || k.Rotation == RotateSame) {
		return s.keptRefreshToken(k, f)
	}
	f.generation++
	t := s.ledger.add(KindRefresh, canary("RT_"), f, f.refreshEnds)
	t.Generation = f.generation
	return t.Value
}

// keptRefreshToken is the newest token of the family, with its life renewed.
func (s *Server) keptRefreshToken(k Knobs, f *family) string {
	for _, t := range slices.Backward(s.ledger.order) {
		if t.family == f && t.Kind == KindRefresh {
			t.Expires = f.refreshEnds
			if k.Rotation == RotateSame {
				return t.Value
			}
			break
		}
	}
	return ""
}
