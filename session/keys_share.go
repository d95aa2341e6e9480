package session

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"
)

// KeyEventKind names what is found out about the keys of several instances.
type KeyEventKind int

// Kinds of key events.
const (
	// KeySeals: the only one of Keys seals from now on, as all instances have it.
	KeySeals KeyEventKind = iota
	// KeysMissing: other instances have had Keys for a minute that this one
	// lacks. It is repeated once a minute.
	KeysMissing
	// KeysApart: another instance has none of this one's keys, and neither can
	// open what the other one seals; Keys are those this one lacks. It is repeated
	// once a minute.
	KeysApart
	// KeysUnannounced: the store could not be asked; Err says why. What was
	// agreed last holds on. It is repeated once a minute.
	KeysUnannounced
	// KeysUnreadable: the store has announcements that are none; Err says how
	// many. What they say does not count. It is repeated once a minute.
	KeysUnreadable
)

// KeyEvent tells an observer about keys, by their names. It holds no secret.
type KeyEvent struct {
	Kind KeyEventKind
	// Keys are at most 16, however many others announce.
	Keys []string
	Err  error
}

const (
	// announceEvery: the store forgets a note after a minute.
	announceEvery = 10 * time.Second
	announceRetry = time.Second
	leaveTimeout  = time.Second
	// keyReportEvery is how often the same thing is worth an event, and how long
	// the others may be ahead: keys reach instances one after another.
	keyReportEvery  = time.Minute
	keysPerKeyEvent = 16
)

// ShareKeys makes a site agree with the other instances on the store: it seals
// with the first of its keys that all of them can open, so that a key can be
// added, promoted and dropped on one after another. With a store that is not
// shared it does nothing.
//
// From the call on the site knows that there may be others, and as long as it
// has not heard of them it seals nothing if it has several keys. Run announces
// the site's keys, again at every SetKeys and from time to time, until ctx ends;
// then it takes leave of the others. It is called once, and has to return before
// the store is closed. Observe must not block.
func (v *Vault) ShareKeys(site *Site, observe func(KeyEvent)) (run func(ctx context.Context)) {
	if v.shared == nil {
		return func(context.Context) {}
	}
	asked := make(chan struct{})
	site.change(func(k *siteKeys) { k.shared, k.asked = true, asked })
	s := &keySharing{
		store: v.shared, site: site, observe: observe, self: newHolder(),
		topic: digest("oauth_session keys topic v1", site.id[:]),
	}
	return func(ctx context.Context) { s.run(ctx, asked) }
}

// keySharing is one site's part in the agreement.
type keySharing struct {
	store   SharedStore
	site    *Site
	observe func(KeyEvent)
	self    Holder
	topic   Topic

	sealed       keyID     // the key of the last KeySeals
	missingSince time.Time // zero: the others have nothing that this site lacks
	reported     map[KeyEventKind]time.Time
}

func (s *keySharing) run(ctx context.Context, asked chan struct{}) {
	defer func() {
		if s.site.keys.Load().known { // else nobody knows of this one either
			s.leave(ctx)
		}
	}()
	for first := true; ; first = false {
		wait := announceEvery
		if err := s.announce(ctx); err != nil {
			wait = announceRetry
			if ctx.Err() == nil {
				s.report(KeyEvent{Kind: KeysUnannounced, Err: err})
			}
		}
		if first {
			close(asked)
		}
		select {
		case <-ctx.Done():
			return
		case <-s.site.rekeyed:
		case <-time.After(wait):
		}
	}
}

// announce tells the others of the keys, which the site can open from before
// that on, and learns of theirs.
func (s *keySharing) announce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	notes, err := s.store.Announce(ctx, s.topic, s.self, keyNote(s.self, s.site.keys.Load().ring))
	if err != nil {
		return err
	}
	others, unreadable := othersKeys(notes, s.self)
	if unreadable > 0 {
		s.report(KeyEvent{Kind: KeysUnreadable, Err: fmt.Errorf("%d of %d announcements of keys cannot be read", unreadable, len(notes))})
	}
	s.tell(s.site.change(func(k *siteKeys) { k.known, k.current, k.others = true, true, others }))
	return nil
}

// leave lets the others go on without this instance at once, and not after a
// minute. Where that fails they wait.
func (s *keySharing) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTimeout)
	defer cancel()
	_, _ = s.store.Announce(ctx, s.topic, s.self, keyNote(s.self, nil))
}

// tell reports what an operator should know of the state of the keys.
func (s *keySharing) tell(k *siteKeys) {
	if k.seals.id != s.sealed {
		s.sealed = k.seals.id
		s.observe(KeyEvent{Kind: KeySeals, Keys: []string{s.sealed.String()}})
	}
	now := time.Now()
	switch {
	case len(k.foreign) == 0:
		s.missingSince = time.Time{}
	case s.missingSince.IsZero():
		s.missingSince = now
	}
	switch {
	case k.apart:
		s.report(KeyEvent{Kind: KeysApart, Keys: someKeys(k.foreign)})
	case len(k.foreign) > 0 && now.Sub(s.missingSince) >= keyReportEvery:
		s.report(KeyEvent{Kind: KeysMissing, Keys: someKeys(k.foreign)})
	}
}

// report passes each kind of event on once a minute.
func (s *keySharing) report(e KeyEvent) {
	now := time.Now()
	if last, ok := s.reported[e.Kind]; ok && now.Sub(last) < keyReportEvery {
		return
	}
	if s.reported == nil {
		s.reported = map[KeyEventKind]time.Time{}
	}
	s.reported[e.Kind] = now
	s.observe(e)
}

func someKeys(ids map[keyID]bool) []string {
	var names []string
	for id := range maps.Keys(ids) {
		names = append(names, id.String())
	}
	slices.Sort(names)
	return names[:min(len(names), keysPerKeyEvent)]
}
