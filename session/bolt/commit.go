package bolt

import (
	"context"
	"fmt"
	"time"

	"go.etcd.io/bbolt"
)

const (
	// maxBatch bounds how many writes share one transaction.
	maxBatch = 256
	// After a transaction, items that are replaced wait for company, restFactor
	// times as long as it took, or as one takes lately: a single slow flush makes
	// nobody wait who comes after it. A flush costs more than what is flushed, and
	// with one CPU Go runs little else while it waits for the disk. Without a rest,
	// transactions of one item followed each other when a thousand sessions were
	// refreshed in a second, and all of them waited for that second.
	restFactor       = 4
	restMin, restMax = time.Millisecond, 100 * time.Millisecond
)

// write is a change that waits for its turn.
type write struct {
	apply func(*bbolt.Tx) error
	done  chan error // buffered: the committer never waits for a caller
}

// write lets the committer apply a change, which it takes from turn, and returns
// when it is on disk. Callers that come while a transaction is being written
// share the next one: the disk's flush is the cost of a write, and one flush
// serves them all.
//
// An error of apply is the answer to this caller alone. The transaction goes
// on, for the sake of the others, so apply must not fail after it changed an
// item.
func (s *Store) write(ctx context.Context, turn chan<- *write, apply func(*bbolt.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("writing session: %w", err)
	}
	w := &write{apply: apply, done: make(chan error, 1)}
	select {
	case turn <- w:
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

// commitLoop is the only writer of the file. It answers every write that it
// received, also after quit.
func (s *Store) commitLoop() {
	replaces, rested := s.replaces, (<-chan time.Time)(nil)
	var lately time.Duration
	for {
		var first *write
		select {
		case first = <-s.writes:
		case first = <-replaces:
		case <-rested:
			replaces, rested = s.replaces, nil
			continue
		case <-s.quit:
			return
		}
		begun, batch := time.Now(), s.gather(first)
		s.commit(batch)
		took := time.Since(begun)
		lately += (took - lately) / 8
		replaces, rested = s.replaces, nil
		if len(batch) < maxBatch {
			rest := min(max(restFactor*min(took, lately), restMin), restMax)
			replaces, rested = nil, time.After(rest)
		}
	}
}

// gather adds the writes that are waiting already.
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

// commit applies a batch in one transaction and tells each caller its result.
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
			// Also for those that met a conflict: it may have been with a
			// write of this very transaction, which has not happened.
			w.done <- fmt.Errorf("writing session: %w", err)
		} else {
			w.done <- results[i]
		}
	}
}
