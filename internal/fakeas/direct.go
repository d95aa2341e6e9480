package fakeas

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Login holds the tokens of a login.
type Login struct {
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"` // empty: none was issued
	IDToken      string `json:"id_token"`      // empty: no openid scope
	SID          string `json:"-"`
}

// LogIn issues the tokens of a login without browser, code or request, for tests
// that need thousands of sessions. It respects the knobs like a login over HTTP.
// It does not appear in the statistics of requests.
func (s *Server) LogIn(clientID, user string, scope ...string) (Login, error) {
	client, ok := s.client(clientID)
	if !ok {
		return Login{}, fmt.Errorf("logging %s in: unknown client %q", user, clientID)
	}
	k := s.Knobs()
	f := &family{id: canary("sid_"), client: client, user: user, scope: scope, authTime: time.Now()}
	f.refreshable = k.RefreshTokens == RefreshAlways ||
		k.RefreshTokens == RefreshOffline && slices.Contains(scope, "offline_access")
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ledger.families[f.id] = f
	body, refused := s.issue(&call{knobs: k}, GrantCode, f, scope)
	if refused != nil {
		return Login{}, fmt.Errorf("logging %s in: %w", user, errors.New(refused.reason))
	}
	login := Login{SID: f.id}
	if err := json.Unmarshal(body, &login); err != nil {
		return Login{}, fmt.Errorf("logging %s in: %w", user, err)
	}
	return login, nil
}
