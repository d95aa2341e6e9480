package oauth

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestRenewReturnsNewerCopyWithoutFetch: a caller that has seen an old copy gets the
// copy that another caller has fetched since.
func TestRenewReturnsNewerCopyWithoutFetch(t *testing.T) {
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
				t.Errorf("got %+v, %v; want value 2", got, err)
			}
		}
		if fetches != 2 {
			t.Errorf("got %d fetches, want 2", fetches)
		}
	})
}

// TestFailedRenewUsesNoBudget: during the pause after a failure all callers get its
// error, and the budget remains.
func TestFailedRenewUsesNoBudget(t *testing.T) {
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
					t.Errorf("got error %v, want %v", got, down)
				}
			}
			time.Sleep(time.Second)
		}
		if fetches != 1+4 { // after 0, 1, 3 and 7 seconds
			t.Errorf("got %d fetches, want 5", fetches)
		}
		err = nil
		if got, err := c.renew(t.Context(), seen, &other, 0); err != nil || got == seen {
			t.Fatalf("another budget: got %v, %v; want a newer copy", got, err)
		}
		for range keyFetchBurst {
			seen = c.peek()
			if got, err := c.renew(t.Context(), seen, &budget, 0); err != nil || got == seen {
				t.Errorf("after the outage: got %v, %v; want a newer copy", got, err)
			}
		}
	})
}

// TestFetchBudgetAllowsBurstThenInterval: take also leaves the reserve.
func TestFetchBudgetAllowsBurstThenInterval(t *testing.T) {
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
		{0, 1, keyFetchBurst - 1}, {0, 0, 1}, {keyFetchInterval - 1, 0, 0}, {keyFetchInterval, 1, 0}, {keyFetchInterval, 0, 1}, {3 * keyFetchInterval, 0, 2}, {time.Hour, 0, keyFetchBurst},
	} {
		if got := taken(tc.at, tc.reserve); got != tc.want {
			t.Errorf("after %v, reserve %d: got %d fetches, want %d", tc.at, tc.reserve, got, tc.want)
		}
	}
}

// TestRenewUsesOwnBudgetAfterSharedFetch: a fetch of another caller may fail or miss
// the new document. Renew then starts a fetch with its own budget.
func TestRenewUsesOwnBudgetAfterSharedFetch(t *testing.T) {
	for _, down := range []error{nil, errors.New("down")} {
		synctest.Test(t, func(t *testing.T) {
			var fetches int
			c := &cache[int]{
				fetch: func(context.Context) (int, time.Duration, error) {
					fetches++
					number := fetches
					time.Sleep(time.Second)
					if number == 2 {
						return 0, 0, down
					}
					return number, time.Hour, nil
				},
				timeout: time.Minute,
			}
			seen, err := c.get(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var other, own fetchBudget
			go func() { _, _ = c.renew(t.Context(), seen, &other, 0) }()
			synctest.Wait()
			before := c.fetchCount()
			got, err := c.renew(t.Context(), seen, &own, 0)
			if down == nil && err == nil && got.number <= before {
				got, err = c.renew(t.Context(), got, &own, 0)
			}
			if err != nil || got.value != 3 || got.number <= before {
				t.Errorf("got %+v, %v; want value 3", got, err)
			}
		})
	}
}

// TestFetchPausesGrowTo30Seconds: while a stale copy is usable, the pauses after
// failed fetches double up to 30 seconds, even if maxEmptyPause is shorter. A
// successful fetch resets them.
func TestFetchPausesGrowTo30Seconds(t *testing.T) {
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
			timeout:       time.Second,
			maxEmptyPause: time.Second,
		}
		getEverySecond := func(seconds int) {
			for range seconds {
				if _, err := c.get(t.Context()); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				time.Sleep(time.Second)
			}
		}
		getEverySecond(1)
		err = down
		getEverySecond(100)
		if want := []int{0, 1, 2, 4, 8, 16, 32, 62, 92}; !slices.Equal(fetched, want) {
			t.Errorf("got fetches at %v, want %v", fetched, want)
		}
		err = nil
		getEverySecond(22) // until 123, with a success at 122
		err, fetched = down, nil
		getEverySecond(5)
		if want := []int{123, 124, 126}; !slices.Equal(fetched, want) {
			t.Errorf("after a success: got fetches at %v, want %v", fetched, want)
		}
	})
}
