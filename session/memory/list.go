package memory

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// labelSets is the number of sets of labelled items. IDs are hashes, so all sets have
// about the same size, and a page of a list sorts a few of them only.
const labelSets = 1 << 12

// labelSet returns the set of an ID: its first 12 bits.
func labelSet(id session.ID) int { return int(id[0])<<4 | int(id[1])>>4 }

// List implements [session.Store]. It also lists expired items before their sweep.
func (s *Store) List(ctx context.Context, after session.ID, limit int) ([]session.ID, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("listing sessions in memory: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var page []session.ID
	for set := labelSet(after); set < labelSets && len(page) < limit; set++ {
		first := len(page)
		for id := range s.labelled[set] {
			if compareIDs(id, after) > 0 {
				page = append(page, id)
			}
		}
		slices.SortFunc(page[first:], compareIDs)
	}
	return page[:min(len(page), limit)], nil
}

func compareIDs(a, b session.ID) int { return bytes.Compare(a[:], b[:]) }

// Labels implements [session.Store].
func (s *Store) Labels(ctx context.Context, ids []session.ID) ([]session.Labelled, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("reading labels from memory: %w", err)
	}
	var found []session.Labelled
	for _, id := range ids {
		if item := s.live(id); item != nil {
			found = append(found, session.Labelled{ID: id, Label: bytes.Clone(item.Label)})
		}
	}
	return found, nil
}

// setLabelled adds an item to its set or removes it. The caller holds s.mu.
func (s *Store) setLabelled(id session.ID, labelled bool) {
	set := labelSet(id)
	switch {
	case !labelled:
		delete(s.labelled[set], id)
	case s.labelled[set] == nil:
		s.labelled[set] = map[session.ID]struct{}{id: {}}
	default:
		s.labelled[set][id] = struct{}{}
	}
}
