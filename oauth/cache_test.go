package oauth

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestRenewAfterAnother: who saw an old copy gets the newer one that somebody
// else fetched meanwhile, without a fetch of its own.
func TestRenewAfterAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fetches int
		c := &cache[int]{
			fetch: func(context.Context) (int, time.Duration, error) {
				fetches++
				return fetches, time.Hour, nil
			},
			timeout: time.Second,
		}
		old, err := c.get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			got, err := c.renew(t.Context(), old, time.Minute)
			if err != nil || got.value != 2 {
				t.Errorf("got %+v, %v", got, err)
			}
		}
		if fetches != 2 {
			t.Errorf("fetched %d times", fetches)
		}
	})
}

// TestRenewFails: the failure is told to all, until a fetch is good again.
func TestRenewFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := errors.New("down")
		var err error
		c := &cache[int]{
			fetch:   func(context.Context) (int, time.Duration, error) { return 0, time.Hour, err },
			timeout: time.Second,
		}
		seen, getErr := c.get(t.Context())
		if getErr != nil {
			t.Fatal(getErr)
		}
		err = down
		for range 3 {
			if _, got := c.renew(t.Context(), seen, time.Minute); !errors.Is(got, down) {
				t.Errorf("got %v", got)
			}
		}
		err = nil
		time.Sleep(time.Minute)
		if got, err := c.renew(t.Context(), seen, time.Minute); err != nil || got == seen {
			t.Errorf("got %v, %v", got, err)
		}
	})
}

// TestPauses: while a copy serves, failed fetches are repeated after pauses
// that grow to 30 seconds, however short the pause without a copy is; a good
// fetch starts them over.
func TestPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var fetched []int
		down := errors.New("down")
		var err error
		c := &cache[int]{
			fetch: func(context.Context) (int, time.Duration, error) {
				fetched = append(fetched, int(time.Since(start).Seconds()))
				return 0, 0, err
			},
			timeout: time.Second,
			pause:   time.Second,
		}
		ask := func(seconds int) {
			for range seconds {
				if _, err := c.get(t.Context()); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				time.Sleep(time.Second)
			}
		}
		ask(1)
		err = down
		ask(100)
		if want := []int{0, 1, 2, 4, 8, 16, 32, 62, 92}; !slices.Equal(fetched, want) {
			t.Errorf("fetched at %v, want %v", fetched, want)
		}
		err = nil
		ask(22) // until 123, with a good one at 122
		err, fetched = down, nil
		ask(5)
		if want := []int{123, 124, 126}; !slices.Equal(fetched, want) {
			t.Errorf("after a good fetch: fetched at %v, want %v", fetched, want)
		}
	})
}
