package oauth

import (
	"context"
	"errors"
	"time"
)

const (
	// callsAtOnce bounds how many calls of one kind a Client has under way: codes,
	// pushed authorization requests, UserInfo and revocations each have slots of
	// their own, so that none of them takes the connections of another.
	callsAtOnce = 32
	// slotWait bounds how long a call waits for its slot. A person waits for it.
	slotWait = 5 * time.Second
	// maxConns bounds the connections to the server for all calls but refreshes:
	// the slots above, and the fetches of metadata and keys, of which one is under
	// way at a time.
	maxConns = 4*callsAtOnce + 8
	// maxRefreshConns bounds those for refreshes, which may hang for long. It is more
	// than a keeper of sessions has under way at a time: a refresh that waits for a
	// connection looks like a server that cannot be reached.
	maxRefreshConns = 1024
)

// ErrBusy: too many calls of one kind are under way. Nothing was sent.
var ErrBusy = errors.New("too many requests of this kind are under way")

// slots are the calls of one kind that may be under way.
type slots chan struct{}

func newSlots() slots { return make(slots, callsAtOnce) }

// acquire waits for a slot. The error is a *TokenError of kind Unavailable:
// nothing was sent.
func (s slots) acquire(ctx context.Context, endpoint string) (release func(), err error) {
	timer := time.NewTimer(slotWait)
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
