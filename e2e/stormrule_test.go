package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// A stormRule gives every session so many short-lived access tokens, and then one that lasts, so that the refreshes of all
// can be counted to the last one. It also judges which tokens requests may be served with.
type stormRule struct {
	mu        sync.Mutex
	refreshed map[string]int           // by user
	life      map[string]time.Duration // by access token
	ends      map[string]time.Time     // by access token, from when an answer with it is here
	last      map[string]string        // the lasting access token, by user
}

func newStormRule() *stormRule {
	return &stormRule{
		refreshed: map[string]int{}, life: map[string]time.Duration{}, ends: map[string]time.Time{}, last: map[string]string{},
	}
}

// issue edits an answer of the token endpoint.
func (s *stormRule) issue(grant string, answer map[string]any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	user, token := subjectOf(answer["id_token"]), answer["access_token"].(string)
	if grant == fakeas.GrantRefresh {
		s.refreshed[user]++
	}
	life := stormLife
	if s.refreshed[user] >= stormRotations {
		life = longLife
		s.last[user] = token
	}
	answer["expires_in"] = life.Seconds()
	s.life[token] = life
}

// served notes that a request sent at a time was served with an access token. It is an error if the token's life was over
// by then. The proxy counts a life from when it has the token, which is before anybody has an answer with it: so this holds
// however slow the machine is.
func (s *stormRule) served(token string, sent time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ends, known := s.ends[token]; !known {
		s.ends[token] = time.Now().Add(s.life[token])
	} else if sent.After(ends) {
		return fmt.Errorf("a request was served with a token that was over %v before", sent.Sub(ends))
	}
	return nil
}

// lasting reports whether the token is the last one of the user.
func (s *stormRule) lasting(user, token string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return token != "" && s.last[user] == token
}

// subjectOf reads the subject of an ID token, whoever signed it.
func subjectOf(idToken any) string {
	text, _ := idToken.(string)
	var claims struct {
		Subject string `json:"sub"`
	}
	if parts := strings.Split(text, "."); len(parts) == 3 {
		payload, err := base64.RawURLEncoding.DecodeString(parts[1])
		if err == nil && json.Unmarshal(payload, &claims) == nil {
			return claims.Subject
		}
	}
	return ""
}
