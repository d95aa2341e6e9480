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
			got, err := c.renew(t.Context(), old, &fetchBudget{}, 0)
			if err != nil || got.value != 2 {
				t.Errorf("got %+v, %v", got, err)
			}
		}
		if fetches != 2 {
			t.Errorf("fetched %d times", fetches)
		}
	})
}

// TestRenewFails: the failure is told to all in the pause that follows, and
// costs nothing of the budget.
func TestRenewFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := errors.New("down")
		var err error
		var fetches int
		c := &cache[int]{
			fetch: func(context.Context) (int, time.Duration, error) {
				fetches++
				return 0, time.Hour, err
			},
			timeout: time.Second,
		}
		seen, getErr := c.get(t.Context())
		if getErr != nil {
			t.Fatal(getErr)
		}
		err = down
		var budget, other fetchBudget
		for range 15 { // seconds
			for range 3 {
				if _, got := c.renew(t.Context(), seen, &budget, 0); !errors.Is(got, down) {
					t.Errorf("got %v", got)
				}
			}
			time.Sleep(time.Second)
		}
		if fetches != 1+4 { // after 0, 1, 3 and 7 seconds
			t.Errorf("fetched %d times", fetches)
		}
		err = nil
		if got, err := c.renew(t.Context(), seen, &other, 0); err != nil || got == seen {
			t.Fatalf("another budget: got %v, %v", got, err)
		}
		for range keyBurst {
			seen = c.peek()
			if got, err := c.renew(t.Context(), seen, &budget, 0); err != nil || got == seen {
				t.Errorf("after the outage: got %v, %v", got, err)
			}
		}
	})
}

// TestFetchBudget: a burst, then one fetch in each gap; the reserve is left to
// others.
func TestFetchBudget(t *testing.T) {
	var b fetchBudget
	now := time.Now()
	taken := func(at time.Duration, reserve int) (n int) {
		for n < 10 && b.take(now.Add(at), reserve) {
			n++
		}
		return n
	}
	for _, tc := range []struct {
		at            time.Duration
		reserve, want int
	}{
		{0, 1, keyBurst - 1}, {0, 0, 1}, {keyGap - 1, 0, 0}, {keyGap, 1, 0}, {keyGap, 0, 1}, {3 * keyGap, 0, 2}, {time.Hour, 0, keyBurst},
	} {
		if got := taken(tc.at, tc.reserve); got != tc.want {
			t.Errorf("after %v, reserve %d: %d fetches, want %d", tc.at, tc.reserve, got, tc.want)
		}
	}
}

// TestRenewAfterAFetchUnderWay: a fetch that others began may have missed what
// the caller looks for, or fail; the caller's own budget counts then.
func TestRenewAfterAFetchUnderWay(t *testing.T) {
	for _, down := range []error{nil, errors.New("down")} {
		synctest.Test(t, func(t *testing.T) {
			var fetches int
			c := &cache[int]{
				fetch: func(context.Context) (int, time.Duration, error) {
					fetches++
					mine := fetches
					time.Sleep(time.Second)
					if mine == 2 {
						return 0, 0, down
					}
					return mine, time.Hour, nil
				},
				timeout: time.Minute,
			}
			seen, err := c.get(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var anonymous, login fetchBudget
			go func() { _, _ = c.renew(t.Context(), seen, &anonymous, 0) }()
			synctest.Wait()
			before := c.fetches()
			got, err := c.renew(t.Context(), seen, &login, 0)
			if down == nil && err == nil && got.number <= before {
				got, err = c.renew(t.Context(), got, &login, 0)
			}
			if err != nil || got.value != 3 || got.number <= before {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
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
