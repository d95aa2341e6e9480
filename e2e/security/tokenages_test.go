package security

import (
	"sync"
	"time"
)

// tokenAges judges the tokens that an app gets from one browser, whose requests
// come one after the other.
type tokenClock struct {
	life time.Duration

	mu    sync.Mutex
	token string
	first time.Time // when the token first came
}

// arrive notes the token of a request, and lets it pass.
func (a *tokenClock) record(token string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if token != a.token {
		a.token, a.first = token, time.Now()
	}
	return true
}

// late returns for how long the token of the last request had been over when that
// request was sent. The site had the token before the app did, so its life ended
// no later than the app's count of it, however slow the machine is.
func (a *tokenClock) expiredFor(sent time.Time) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	return sent.Sub(a.first.Add(a.life))
}
