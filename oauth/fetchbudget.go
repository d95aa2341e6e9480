package oauth

import "time"

const (
	// keyGap is the pause between fetches for the sake of a key that is not in
	// the key set, once the burst is used up.
	keyGap = 30 * time.Second
	// keyBurst is how many such fetches may follow each other at once.
	keyBurst = 3
)

// fetchBudget bounds the fetches of keys that one kind of token causes: a burst
// of keyBurst, then one in each keyGap. Anybody can send logout tokens with
// made-up key ids, so each kind has a budget of its own. The lock of the cache
// guards it.
type fetchBudget struct {
	// full is when the whole burst is available again.
	full     time.Time
	failures failures
}

// take uses one fetch of the budget, and reports false if fewer than reserve
// would remain.
func (b *fetchBudget) take(now time.Time, reserve int) bool {
	from := b.full
	if from.Before(now) {
		from = now
	}
	if from.Sub(now) > time.Duration(keyBurst-1-reserve)*keyGap {
		return false
	}
	b.full = from.Add(keyGap)
	return true
}

// giveBack returns a fetch that failed: the pause after failures bounds those.
func (b *fetchBudget) giveBack() { b.full = b.full.Add(-keyGap) }

// failures are the failed fetches of one kind of caller since the last good one.
type failures struct {
	count     int
	number    uint64 // of the last fetch that failed
	err       error
	notBefore time.Time // when the next fetch may begin
}

// add records a failure. The pause after it doubles from one second to limit.
func (f *failures) add(number uint64, err error, now time.Time, limit time.Duration) {
	f.notBefore = now.Add(min(time.Second<<min(f.count, 10), limit))
	f.number, f.err = number, err
	f.count++
}
