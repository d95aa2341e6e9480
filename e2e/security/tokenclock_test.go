package security

import (
	"sync"
	"time"
)

// A tokenClock measures the age of the tokens that an app receives from one browser, which
// sends one request at a time.
type tokenClock struct {
	life time.Duration

	mu    sync.Mutex
	token string
	first time.Time // when the app first received the token
}

// record records the token of a request and accepts it.
func (a *tokenClock) record(token string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if token != a.token {
		a.token, a.first = token, time.Now()
	}
	return true
}

// expiredFor returns for how long the token of the last request had been expired when the
// browser sent that request. The site had the token before the app did, so the token
// expired no later than this clock says, on a slow machine too.
func (a *tokenClock) expiredFor(sent time.Time) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	return sent.Sub(a.first.Add(a.life))
}
