package oauth

import "time"

const (
	// keyFetchInterval is the time between two fetches for key ids that the key
	// set lacks, once the burst is used up.
	keyFetchInterval = 30 * time.Second
	// keyFetchBurst is how many such fetches may follow each other without a
	// pause.
	keyFetchBurst = 3

	// The same for tokens that come from the server itself. Each of them has cost the
	// server a request already, and no one else can invent key ids in them.
	serverKeyFetchInterval = 10 * time.Second
	serverKeyFetchBurst    = 10
)

// fetchBudget limits the fetches of keys that one kind of token causes: a burst, then
// one in each interval. Anyone can send logout tokens with invented key ids, so each
// kind has a separate budget. The lock of the cache guards it.
type fetchBudget struct {
	fromServer bool      // the tokens come from the token endpoint
	fullAt     time.Time // when the whole burst is available again
	failures   failures
}

func (b *fetchBudget) limits() (burst int, interval time.Duration) {
	if b.fromServer {
		return serverKeyFetchBurst, serverKeyFetchInterval
	}
	return keyFetchBurst, keyFetchInterval
}

// take uses one fetch of the budget. It reports false, and uses none, if fewer
// than reserve would remain.
func (b *fetchBudget) take(now time.Time, reserve int) bool {
	burst, interval := b.limits()
	from := b.fullAt
	if from.Before(now) {
		from = now
	}
	if from.Sub(now) > time.Duration(burst-1-reserve)*interval {
		return false
	}
	b.fullAt = from.Add(interval)
	return true
}

// refund returns a fetch that failed: the pause after failures limits these.
func (b *fetchBudget) refund() {
	_, interval := b.limits()
	b.fullAt = b.fullAt.Add(-interval)
}

// failures counts the failed fetches since the last successful one.
type failures struct {
	count     int
	number    uint64 // of the last failed fetch
	err       error
	notBefore time.Time // when the next fetch may start
}

// add records a failure. The pause after it doubles from one second to limit.
func (f *failures) add(number uint64, err error, now time.Time, limit time.Duration) {
	f.notBefore = now.Add(min(time.Second<<min(f.count, 10), limit))
	f.number, f.err = number, err
	f.count++
}
