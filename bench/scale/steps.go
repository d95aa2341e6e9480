package main

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/keeper"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// fill logs users in and keeps their secrets.
func (w *worker) fill(n int) (tenths []float64, err error) {
	for begin := 0; begin < n; {
		end := min(begin+max(n/10, 1), n)
		started := time.Now()
		_, err := together(func(i int) (bool, error) {
			if begin+i >= end {
				return false, nil
			}
			secret, _, err := w.keeper.Create(context.Background(), newIdentity(), newTokens(true))
			if err != nil {
				return false, err
			}
			return true, w.secrets.set(begin+i, secret)
		})
		if err != nil {
			return nil, err
		}
		tenths = append(tenths, float64(end-begin)/time.Since(started).Seconds())
		begin = end
	}
	return tenths, nil
}

// expiredSize is that of a record with our tokens.
const expiredSize = 3100

// One in sampled of the expired items has sampleTag, by which they are counted. The
// sweep removes lastExpired last, as it goes by hour and ID, which has lastTag.
const sampled = 100

var (
	lastExpired = session.ID{0: 0xff, 1: 0xff, 2: 0xff, 3: 0xff, 4: 0xff, 5: 0xff, 6: 0xff, 7: 0xff}
	sampleTag   = session.Tag{0: 1}
	lastTag     = session.Tag{0: 2}
)

// fillExpired keeps items that have all expired in the same hour, and that the
// next sweep therefore removes. The keeper would not make any.
func (w *worker) fillExpired(n int) error {
	time.Sleep(2 * time.Second) // until the sweep of Open has found nothing to do
	expired := time.Now().Truncate(time.Hour).Add(-90 * time.Minute)
	_, err := together(func(i int) (bool, error) {
		if i >= n {
			return false, nil
		}
		id, tags := session.ID(seal.NewSecret()), []session.Tag{session.Tag(seal.NewSecret()), session.Tag(seal.NewSecret())}
		if i%sampled == 0 {
			tags[0] = sampleTag
		}
		if i == 0 {
			id, tags[1] = lastExpired, lastTag
		}
		return true, w.store.Create(context.Background(), id, session.Item{
			Version: 1, Expires: expired, Value: []byte(text(expiredSize)), Tags: tags,
		})
	})
	return err
}

// sweep is mixed until the sweep is done, which began when the store was opened.
// It returns how many items that removed, more or less: until then the store lists
// them.
func (w *worker) sweep(s step) (n int, reads, writes waits, err error) {
	expired, err := w.store.Tagged(context.Background(), sampleTag)
	if err != nil {
		return 0, reads, writes, err
	}
	reads, writes, err = w.mixed(s, func() bool {
		last, err := w.store.Tagged(context.Background(), lastTag)
		return err == nil && len(last) == 0
	})
	return sampled * len(expired), reads, writes, err
}

// login logs users in for some time.
func (w *worker) login(s step) (waits, error) {
	deadline := after(s.Seconds)
	return together(func(int) (bool, error) {
		_, _, err := w.keeper.Create(context.Background(), newIdentity(), newTokens(true))
		return time.Now().Before(deadline), err
	})
}

// peek reads sessions without using them, so that nothing is written.
func (w *worker) peek(n int) error {
	all := w.secrets.n()
	_, err := together(func(i int) (bool, error) {
		secret, err := w.secrets.get(rand.IntN(all))
		if err == nil {
			_, err = w.keeper.Peek(context.Background(), secret)
		}
		return i < n, err
	})
	return err
}

// request uses any sessions as proxied requests do for some time, at a rate or
// as fast as it goes.
func (w *worker) request(s step) (waits, error) {
	all, deadline := w.secrets.n(), after(s.Seconds)
	if s.Rate == 0 {
		return together(func(int) (bool, error) { return time.Now().Before(deadline), w.requestOne(rand.IntN(all)) })
	}
	return paced(s.Rate, func() bool { return time.Now().After(deadline) }, func() error { return w.requestOne(rand.IntN(all)) })
}

func (w *worker) requestOne(i int) error {
	secret, err := w.secrets.get(i)
	if err == nil {
		_, err = w.keeper.Fresh(context.Background(), secret)
	}
	return err
}

// refresh refreshes one session after the other for some time, and goes on to
// the next when the tokens are written, which a request would not wait for.
func (w *worker) refresh(s step) (waits, error) {
	w.server.idToken.Store(s.IDToken)
	deadline := after(s.Seconds)
	all, first := w.secrets.n(), w.next
	took, err := together(func(i int) (bool, error) {
		return time.Now().Before(deadline), w.refreshAndWrite((first + i) % all)
	})
	w.next += took.N + callers // which may have begun another
	return took, err
}

func (w *worker) refreshAndWrite(i int) error {
	secret, err := w.secrets.get(i)
	if err != nil {
		return err
	}
	written := make(chan struct{})
	w.landed.Store(w.site.Ref(secret).ID, written)
	if _, err := w.keeper.FreshSince(context.Background(), secret, time.Now()); err != nil {
		return err
	}
	<-written
	return nil
}

// observe hears of refreshes that are written.
func (w *worker) observe(e keeper.Event) {
	if e.Kind != keeper.EventRefreshed {
		return
	}
	if written, waiting := w.landed.LoadAndDelete(e.ID); waiting {
		close(written.(chan struct{}))
	}
}

func (w *worker) refreshOne(i int) error {
	secret, err := w.secrets.get(i)
	if err == nil {
		_, err = w.keeper.FreshSince(context.Background(), secret, time.Now())
	}
	return err
}

// mixed has Rate requests a second and a fifth as many refreshes, until it is
// over.
func (w *worker) mixed(s step, over func() bool) (reads, writes waits, err error) {
	all := w.secrets.n()
	ended := make(chan struct{})
	isOver := func() bool {
		select {
		case <-ended:
			return true
		default:
			return false
		}
	}
	var readErr, writeErr error
	done := make(chan struct{}, 2)
	go func() {
		reads, readErr = paced(s.Rate, isOver, func() error { return w.requestOne(rand.IntN(all)) })
		done <- struct{}{}
	}()
	go func() {
		// One session after the other: the keeper refreshes none twice in a second.
		var refreshed atomic.Int64
		writes, writeErr = paced(s.Rate/5, isOver, func() error {
			return w.refreshOne((w.next + int(refreshed.Add(1))) % all)
		})
		w.next += writes.N
		done <- struct{}{}
	}()
	for !over() {
		time.Sleep(5 * time.Millisecond)
	}
	close(ended)
	<-done
	<-done
	if readErr == nil {
		readErr = writeErr
	}
	return reads, writes, readErr
}

func after(seconds float64) time.Time {
	return time.Now().Add(time.Duration(seconds * float64(time.Second)))
}
