package oauth

import (
	"context"
	"errors"
	"time"
)

const (
	// maxConcurrentCalls limits the concurrent calls of one kind per Client. Codes,
	// pushed authorization requests, UserInfo, sources of claims and revocations have
	// separate slots, so that none of them takes the connections of another.
	maxConcurrentCalls = 32
	// maxSlotWait limits how long a call waits for its slot. A user waits for it.
	maxSlotWait = 5 * time.Second
	// maxConns limits the connections to the server for all calls but refreshes:
	// one for each slot, and some for the fetches of metadata and keys, of which
	// one runs at a time.
	maxConns = 5*maxConcurrentCalls + 8
	// maxRefreshConns limits the connections for refreshes, which may be slow. It
	// exceeds the number of concurrent refreshes of a session keeper: a refresh that
	// waits for a connection looks like a server that cannot be reached.
	maxRefreshConns = 1024
)

// ErrBusy means that a call has waited five seconds while 32 calls of its kind were
// running, and that it has sent nothing. The kinds are the redemption of codes,
// pushed authorization requests, UserInfo, sources of claims and revocations.
var ErrBusy = errors.New("too many requests of this kind are running")

// slots limits the concurrent calls of one kind.
type slots chan struct{}

func newSlots() slots { return make(slots, maxConcurrentCalls) }

// acquire waits for a slot. Its error is a *TokenError of the kind Unavailable,
// because the call has sent nothing.
func (s slots) acquire(ctx context.Context, endpoint string) (release func(), err error) {
	timer := time.NewTimer(maxSlotWait)
	defer timer.Stop()
	err = ErrBusy
	select {
	case s <- struct{}{}:
		return func() { <-s }, nil
	case <-timer.C:
	case <-ctx.Done():
		err = connError(ctx.Err())
	}
	return nil, &TokenError{Endpoint: endpoint, Kind: Unavailable, Err: err}
}
