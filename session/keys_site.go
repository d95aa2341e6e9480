package session

import (
	"errors"
	"fmt"
	"time"
)

// siteKeys is what a site seals and opens with at one moment. It is never
// modified: a change makes a new one.
type siteKeys struct {
	ring *KeyRing
	// seals is the key of the ring that seals. Nil: it is not known yet which
	// one every instance can open.
	seals *rootKey

	// shared: other instances use the site's sessions too.
	shared bool
	// asked is closed when the store has been asked for the first time what
	// keys the others have, and has answered or failed to.
	asked chan struct{}
	// known: it has answered.
	known bool
	// current: it has since the ring was changed.
	current bool
	// others are the keys of each of the other instances.
	others [][]keyID
	// foreign are those that the ring lacks.
	foreign map[keyID]bool
	// apart: an instance has none of the keys in the ring.
	apart bool
}

// SetKeys replaces the keys. What is sealed from now on is sealed with the new
// ones; what only a dropped key opens is no session any more.
func (s *Site) SetKeys(ring *KeyRing) {
	s.change(func(k *siteKeys) { k.ring, k.current = ring, false })
	select {
	case s.rekeyed <- struct{}{}:
	default:
	}
}

// change replaces the site's keys by what f makes of a copy, and draws the
// conclusions.
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

// compare finds what sets the other instances' keys apart from the ring.
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
				k.foreign = map[keyID]bool{}
			}
			k.foreign[id] = true
		}
		k.apart = k.apart || !common
	}
}

// choose returns the key that is to seal: the first one that every instance
// can open. An instance that has none of our keys has no say, as nothing would
// suit it. The one that sealed so far stays until the store has been asked, and
// where no key suits all others: a forged announcement can hold a new key up and
// cannot bring it forward.
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

// common returns the first key that all others with a say have, or nil.
func (k *siteKeys) common() *rootKey {
	instances, has := 0, make(map[keyID]int, len(k.ring.list))
	for _, ids := range k.others {
		ours := map[keyID]bool{} // a note may name a key twice
		for _, id := range ids {
			if k.ring.byID[id] != nil {
				ours[id] = true
			}
		}
		if len(ours) > 0 {
			instances++
		}
		for id := range ours {
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

// agreementWait bounds how long sealing waits for the first answer of the
// store on the others' keys. It usually comes within milliseconds of the start
// of a configuration.
const agreementWait = 2 * time.Second

// errNotAgreed: with several keys in the ring, sealing with the wrong one makes
// what another instance cannot open.
var errNotAgreed = errors.New("the store has not answered yet which of the keys all instances have")

var errNoKeys = errors.New("the site has no keys")

// sealing returns the key to seal with.
func (s *Site) sealing() (*rootKey, error) {
	k := s.keys.Load()
	if len(k.ring.list) == 0 {
		return nil, errNoKeys
	}
	if k.seals == nil {
		select {
		case <-k.asked:
		case <-time.After(agreementWait):
		}
		if k = s.keys.Load(); k.seals == nil {
			return nil, errNotAgreed
		}
	}
	return k.seals, nil
}

// opening returns the key of a name. The error is an UnreadableError if it was
// dropped, and a foreignKeyError if this instance lags behind another one, or
// cannot tell.
func (s *Site) opening(id keyID) (*rootKey, error) {
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

// foreignKeyError: something is sealed with a key that this instance lacks, and
// another one has, as far as is known. It exists, and must not be taken for
// nothing because of a key that has not arrived here.
type foreignKeyError keyID

func (e foreignKeyError) Error() string {
	return fmt.Sprintf("sealed with key %v, which this instance lacks and another one has, as far as is known: give all instances the same keys", keyID(e))
}
