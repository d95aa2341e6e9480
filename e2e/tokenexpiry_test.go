package e2e

import (
	"fmt"
	"sync"
	"time"
)

// A tokenExpiry finds responses with expired access tokens. It does not depend on the speed of the machine: the proxy
// counts a token's lifetime from the token answer, which is before the first response with the token.
type tokenExpiry struct {
	mu      sync.Mutex
	expires map[string]time.Time // by token: the latest possible expiry
}

func newTokenExpiry() *tokenExpiry { return &tokenExpiry{expires: map[string]time.Time{}} }

// check records a response with a token of the given lifetime. It returns an error if the token had expired before the
// request was sent.
func (e *tokenExpiry) check(token string, lifetime time.Duration, sent time.Time) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	expires, known := e.expires[token]
	switch {
	case !known:
		e.expires[token] = time.Now().Add(lifetime)
	case sent.After(expires):
		return fmt.Errorf("got a token that had expired %v before the request", sent.Sub(expires))
	}
	return nil
}
