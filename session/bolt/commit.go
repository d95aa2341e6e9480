package bolt

import (
	"context"
	"fmt"
	"time"

	"go.etcd.io/bbolt"
)

const (
	// maxBatch is the largest number of writes in one transaction.
	maxBatch = 256

	// After a transaction, Replace waits for pauseFactor times the duration of a
	// transaction, so that more items share the next one. The duration is that of
	// the last transaction or the average, whichever is less: a single slow flush
	// delays no later write. Without the pause, a thousand refreshes in a second
	// became transactions of one item each, and every refresh waited for all of
	// them. A flush costs more than the bytes it flushes, and with one CPU Go runs
	// little else while it waits for the disk.
	pauseFactor        = 4
	minPause, maxPause = time.Millisecond, 100 * time.Millisecond
	// commitWeight is the weight of the last transaction in the moving average: 1/8.
	commitWeight = 8
)

// write is one change for the committer.
type write struct {
	apply func(*bbolt.Tx) error
	done  chan error // buffered: the committer never waits for a caller
}

// write sends a change to the committer and returns when the change is on disk.
// queue is writes or replaces. Callers that arrive during a transaction share the
// next one, because the flush to the disk is the cost of a write.
//
// An error of apply goes to this caller only, and the transaction continues for the
// other callers. So apply must not fail after it has changed an item.
func (s *Store) write(ctx context.Context, queue chan<- *write, apply func(*bbolt.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("writing session: %w", err)
	}
	w := &write{apply: apply, done: make(chan error, 1)}
	select {
	case queue <- w:
	case <-s.quit:
		return errClosed
	case <-ctx.Done():
		return fmt.Errorf("waiting to write session: %w", ctx.Err())
	}
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("writing session: %w", ctx.Err())
	}
}

// commitLoop is the only writer of the file. It completes every write that it has
// received, also after quit.
//
// bbolt's own DB.Batch waits before the first write and ignores contexts: see
// docs/decisions/0024-the-committer-of-bolt.md.
func (s *Store) commitLoop() {
	replaces, replacesReady := s.replaces, (<-chan time.Time)(nil)
	var avgCommit time.Duration
	for {
		var first *write
		select {
		case first = <-s.writes:
		case first = <-replaces:
		case <-replacesReady:
			replaces, replacesReady = s.replaces, nil
			continue
		case <-s.quit:
			return
		}
		begun, batch := time.Now(), s.gather(first)
		s.commit(batch)
		took := time.Since(begun)
		avgCommit += (took - avgCommit) / commitWeight
		replaces, replacesReady = s.replaces, nil
		if len(batch) < maxBatch {
			pause := min(max(pauseFactor*min(took, avgCommit), minPause), maxPause)
			replaces, replacesReady = nil, time.After(pause)
		}
	}
}

// gather returns a batch of the first write and those that are waiting already.
func (s *Store) gather(first *write) []*write {
	batch := []*write{first}
	for len(batch) < maxBatch {
		select {
		case w := <-s.writes:
			batch = append(batch, w)
		case w := <-s.replaces:
			batch = append(batch, w)
		default:
			return batch
		}
	}
	return batch
}

// commit applies a batch in one transaction and sends each caller its result.
func (s *Store) commit(batch []*write) {
	results := make([]error, len(batch))
	err := s.db.Update(func(tx *bbolt.Tx) error {
		for i, w := range batch {
			results[i] = w.apply(tx)
		}
		return nil
	})
	for i, w := range batch {
		if err != nil {
			// This also replaces an ErrConflict: the conflict may be with a write
			// of this transaction, which has not happened.
			w.done <- fmt.Errorf("writing session: %w", err)
		} else {
			w.done <- results[i]
		}
	}
}
