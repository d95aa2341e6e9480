package e2e

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"sync"
	"time"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// A stormPolicy sets expires_in of token answers: stormRotations short-lived access tokens per user, then a final long-lived
// one. A test can therefore wait for the last refresh and count all of them.
type stormPolicy struct {
	expiry *tokenExpiry

	mu        sync.Mutex
	refreshes map[string]int           // by user
	lifetime  map[string]time.Duration // by access token
	final     map[string]string        // the long-lived access token, by user
}

func newStormPolicy() *stormPolicy {
	return &stormPolicy{
		expiry: newTokenExpiry(), refreshes: map[string]int{}, lifetime: map[string]time.Duration{}, final: map[string]string{},
	}
}

// issue edits a token answer.
func (s *stormPolicy) issue(grant string, answer map[string]any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	user, token := subjectOf(answer["id_token"]), answer["access_token"].(string)
	if grant == fakeas.GrantRefresh {
		s.refreshes[user]++
	}
	lifetime := stormLife
	if s.refreshes[user] >= stormRotations {
		lifetime = longLife
		s.final[user] = token
	}
	answer["expires_in"] = lifetime.Seconds()
	s.lifetime[token] = lifetime
}

// checkServed returns an error if the token had expired before the request was sent.
func (s *stormPolicy) checkServed(token string, sent time.Time) error {
	s.mu.Lock()
	lifetime := s.lifetime[token]
	s.mu.Unlock()
	return s.expiry.check(token, lifetime, sent)
}

// isFinal reports whether the token is the user's final one.
func (s *stormPolicy) isFinal(user, token string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return token != "" && s.final[user] == token
}

// subjectOf returns the subject of an ID token without verifying it.
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
