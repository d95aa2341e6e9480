package seal

import (
	"errors"
	"fmt"
	"time"
)

// siteKeys is the state of a site's keys. It is immutable: a change makes a copy.
type siteKeys struct {
	ring *KeyRing
	// seals is the key of the ring that seals. It is nil until the site knows which
	// one every instance can open with.
	seals *rootKey

	// shared is true if other instances use the site's sessions too.
	shared bool
	// asked is closed after the first announcement to the store, whether it
	// succeeded or failed.
	asked chan struct{}
	// known is true once an announcement has succeeded, and current if one has
	// succeeded since the ring last changed.
	known, current bool
	// others has the keys of each other instance.
	others [][]KeyID
	// foreign has the keys of other instances that the ring lacks.
	foreign map[KeyID]bool
	// apart is true if another instance has none of the ring's keys.
	apart bool
}

// SetKeys replaces the keys. New values are sealed with the new keys. A session that
// only a dropped key opens no longer exists.
func (s *Site) SetKeys(ring *KeyRing) {
	s.change(func(k *siteKeys) { k.ring, k.current = ring, false })
	select {
	case s.rekeyed <- struct{}{}:
	default:
	}
}

// change applies f to a copy of the state, derives the other fields from it, and
// stores it.
func (s *Site) change(f func(*siteKeys)) *siteKeys {
	s.changing.Lock()
	defer s.changing.Unlock()
	next := *s.keys.Load()
	f(&next)
	next.compare()
	next.seals = next.choose()
	s.keys.Store(&next)
	return &next
}

// compare sets foreign and apart.
func (k *siteKeys) compare() {
	k.foreign, k.apart = nil, false
	for _, ids := range k.others {
		common := false
		for _, id := range ids {
			if k.ring.byID[id] != nil {
				common = true
				continue
			}
			if k.foreign == nil {
				k.foreign = map[KeyID]bool{}
			}
			k.foreign[id] = true
		}
		k.apart = k.apart || !common
	}
}

// choose returns the key to seal with: the first one that every instance has. An
// instance that has none of the ring's keys is ignored, because no key would suit
// it. The former key stays until the store has answered, and if no key suits all
// other instances: a forged announcement can delay a new key, and cannot activate
// one early.
func (k *siteKeys) choose() *rootKey {
	if len(k.ring.list) == 0 {
		return nil
	}
	first := &k.ring.list[0]
	switch {
	case !k.shared, len(k.ring.list) == 1:
		return first
	case !k.known:
		return nil
	}
	var stays *rootKey
	if k.seals != nil {
		stays = k.ring.byID[k.seals.id]
	}
	if stays != nil && !k.current {
		return stays
	}
	if common := k.common(); common != nil {
		return common
	}
	if stays != nil {
		return stays
	}
	return first
}

// common returns the first key that all other instances have, or nil. It ignores
// instances that have none of the ring's keys.
func (k *siteKeys) common() *rootKey {
	instances, has := 0, make(map[KeyID]int, len(k.ring.list))
	for _, ids := range k.others {
		known := map[KeyID]bool{} // an announcement may name a key twice
		for _, id := range ids {
			if k.ring.byID[id] != nil {
				known[id] = true
			}
		}
		if len(known) > 0 {
			instances++
		}
		for id := range known {
			has[id]++
		}
	}
	for i := range k.ring.list {
		if root := &k.ring.list[i]; has[root.id] == instances {
			return root
		}
	}
	return nil
}

// agreementWait bounds how long sealing waits for the first answer of the store
// about the keys of other instances. The answer usually comes within milliseconds
// of the start of a configuration.
const agreementWait = 2 * time.Second

// ErrNotAgreed reports that the ring has several keys and the store has not said yet
// which of them the other instances have. Sealing with the wrong key would produce a
// value that another instance cannot open. A later try may succeed.
var ErrNotAgreed = errors.New("the store has not answered yet which of the keys all instances have")

// ErrNoKeys reports that the site has no keys.
var ErrNoKeys = errors.New("the site has no keys")

// sealing returns the key to seal with.
func (s *Site) sealing() (*rootKey, error) {
	k := s.keys.Load()
	if len(k.ring.list) == 0 {
		return nil, ErrNoKeys
	}
	if k.seals == nil {
		select {
		case <-k.asked:
		case <-time.After(agreementWait):
		}
		if k = s.keys.Load(); k.seals == nil {
			return nil, ErrNotAgreed
		}
	}
	return k.seals, nil
}

// CanOpen returns nil if the site has the key with this ID, and else the error of
// Open for a record of this key.
func (s *Site) CanOpen(id KeyID) error {
	_, err := s.opening(id)
	return err
}

// opening returns the key with this ID. The error is an UnreadableError if no
// instance has it, and a foreignKeyError if another instance has it or may have it.
func (s *Site) opening(id KeyID) (*rootKey, error) {
	k := s.keys.Load()
	root := k.ring.byID[id]
	switch {
	case root != nil:
		return root, nil
	case k.foreign[id], k.shared && !k.known:
		return nil, foreignKeyError(id)
	default:
		return nil, &UnreadableError{Part: PartKey, key: id}
	}
}

// foreignKeyError reports a value sealed with a key that this instance lacks and
// another instance has or may have. The session exists: this instance must not treat
// it as ended because a key has not arrived here.
type foreignKeyError KeyID

func (e foreignKeyError) Error() string {
	return fmt.Sprintf("sealed with key %v, which this instance lacks and another one has, as far as is known: give all instances the same keys", KeyID(e))
}
