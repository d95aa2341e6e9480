package seal

import (
	"context"
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// KeyEventKind is the kind of a KeyEvent.
type KeyEventKind int

// Kinds of key events.
const (
	// KeySeals: the key in Keys seals from now on; all instances have it.
	KeySeals KeyEventKind = iota
	// KeysMissing: other instances have had Keys for a minute, and this one lacks
	// them. The event is repeated once a minute.
	KeysMissing
	// KeysApart: this instance and another one have no key in common, so neither
	// opens the sessions of the other. Keys are those this instance lacks. The event
	// is repeated once a minute.
	KeysApart
	// KeysUnannounced: the announcement to the store failed with Err. The last
	// agreement stays in force. The event is repeated once a minute.
	KeysUnannounced
	// KeysUnreadable: the store has announcements that cannot be decoded, and they
	// are ignored; Err has their number. The event is repeated once a minute.
	KeysUnreadable
)

// KeyEvent reports the state of the keys to an observer. It contains no secret.
type KeyEvent struct {
	Kind KeyEventKind
	// Keys has at most 16 key IDs.
	Keys []string
	Err  error
}

const (
	// announceEvery is shorter than the minute after which the store drops an
	// announcement.
	announceEvery = 10 * time.Second
	announceRetry = time.Second
	leaveTimeout  = time.Second
	// announceTimeout bounds one call of the store.
	announceTimeout = 5 * time.Second
	// keyReportEvery is the shortest time between two events of a kind. It is also
	// how long another instance may have a key first, because a rollout reaches
	// instances one after another.
	keyReportEvery  = time.Minute
	keysPerKeyEvent = 16
)

// Announcer is the part of session.SharedStore that Share uses.
type Announcer interface {
	Announce(ctx context.Context, topic session.Topic, from session.Holder, announcement []byte) (announcements [][]byte, err error)
}

// Share makes a site agree with the other instances on one store about the key to
// seal with: the first of its keys that all of them have. A key can then be added,
// promoted and dropped at one instance after another.
//
// Share returns at once. From then on, a site with several keys seals nothing until
// the store has answered. The returned function announces the site's keys, again
// after every SetKeys and every ten seconds, until its context ends; then it
// announces that the instance leaves. Call it once. It must return before the store
// is closed. Observe must not block.
func Share(store Announcer, site *Site, observe func(KeyEvent)) (run func(ctx context.Context)) {
	asked := make(chan struct{})
	site.change(func(k *siteKeys) { k.shared, k.asked = true, asked })
	s := &keySharing{
		store: store, site: site, observe: observe,
		topic: site.Digest("oauth_session keys topic v1"),
	}
	_, _ = rand.Read(s.self[:]) // never fails: crypto/rand.Read ends the program instead
	return func(ctx context.Context) { s.run(ctx, asked) }
}

// keySharing takes part in the agreement for one site.
type keySharing struct {
	store   Announcer
	site    *Site
	observe func(KeyEvent)
	self    session.Holder
	topic   session.Topic

	sealed       KeyID     // the key of the last KeySeals
	missingSince time.Time // zero if this site has all keys of the others
	reported     map[KeyEventKind]time.Time
}

func (s *keySharing) run(ctx context.Context, asked chan struct{}) {
	defer func() {
		if s.site.keys.Load().known { // otherwise no announcement has succeeded
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

// announce publishes the keys of this site and reads those of the others. The site
// can open with a new key before it announces it.
func (s *keySharing) announce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, announceTimeout)
	defer cancel()
	all, err := s.store.Announce(ctx, s.topic, s.self, encodeAnnouncement(s.self, s.site.keys.Load().ring))
	if err != nil {
		return err
	}
	others, unreadable := othersKeys(all, s.self)
	if unreadable > 0 {
		s.report(KeyEvent{Kind: KeysUnreadable, Err: fmt.Errorf("%d of %d announcements of keys cannot be read", unreadable, len(all))})
	}
	s.notify(s.site.change(func(k *siteKeys) { k.known, k.current, k.others = true, true, others }))
	return nil
}

// leave announces the end of this instance, so that the others need not wait for its
// announcement to expire. If it fails, they wait up to a minute.
func (s *keySharing) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTimeout)
	defer cancel()
	_, _ = s.store.Announce(ctx, s.topic, s.self, encodeAnnouncement(s.self, nil))
}

// notify sends the events that follow from the state of the keys.
func (s *keySharing) notify(k *siteKeys) {
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

// report sends an event unless one of its kind was sent within a minute.
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

func someKeys(ids map[KeyID]bool) []string {
	var names []string
	for id := range maps.Keys(ids) {
		names = append(names, id.String())
	}
	slices.Sort(names)
	return names[:min(len(names), keysPerKeyEvent)]
}
