package fakeas

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Login is what a login brought.
type Login struct {
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"` // empty: none was issued
	IDToken      string `json:"id_token"`      // empty: no openid scope
	SID          string `json:"-"`
}

// LogIn is a whole login without a browser, a code and a request, for tests that
// need thousands of sessions. The knobs count as in a login over HTTP; the
// statistics of requests do not contain it.
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
