package fleet

import (
	"net/http"
	"slices"
	"sync"
	"time"
)

// issuerTimes are how long the issuer took for each request for a token.
type issuerTimes struct {
	mu   sync.Mutex
	took []time.Duration
}

// timed notes how long requests for tokens take.
func (f *Fleet) timed(issuer http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun := time.Now()
		issuer.ServeHTTP(w, r)
		if r.Method != http.MethodPost {
			return
		}
		f.took.mu.Lock()
		defer f.took.mu.Unlock()
		f.took.took = append(f.took.took, time.Since(begun))
	})
}

// IssuerTook returns how long each request for a token has taken since the last
// call, sorted.
func (f *Fleet) IssuerTook() []time.Duration {
	f.took.mu.Lock()
	defer f.took.mu.Unlock()
	took := f.took.took
	f.took.took = nil
	slices.Sort(took)
	return took
}
