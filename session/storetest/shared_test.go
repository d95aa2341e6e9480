package storetest

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
)

func TestReferenceStorePasses(t *testing.T) {
	open := func(t *testing.T) session.Store { return newData(t).newProcess() }
	t.Run("alone", func(t *testing.T) { Run(t, open) })
	t.Run("over time", func(t *testing.T) { RunFakeTime(t, open) })
	t.Run("two", func(t *testing.T) {
		RunShared(t, func(t *testing.T) (a, b session.SharedStore) {
			d := newData(t)
			return d.newProcess(), d.newProcess()
		})
	})
}

// brokenShared is a correct shared store with some methods replaced by broken ones.
type brokenShared struct {
	*process
	watch       func(changed func([]session.ID))
	view        viewFunc
	viewCurrent viewFunc
	replace     func(ctx context.Context, id session.ID, item session.Item) error
	delete      func(ctx context.Context, id session.ID) error
	acquire     acquireFunc
	beat        func(ctx context.Context, id session.ID, lease session.Lease) error
	release     func(ctx context.Context, id session.ID, holder session.Holder) error
	deleteAt    func(ctx context.Context, id session.ID, version uint64, holder session.Holder) error
	announce    func(ctx context.Context, topic session.Topic, from session.Holder, text []byte) ([][]byte, error)
}

type acquireFunc = func(context.Context, session.ID, uint64, session.Holder, session.Lease) (session.Lease, error)

func newBrokenShared(p *process, sabotage func(*brokenShared)) *brokenShared {
	b := &brokenShared{
		process:     p,
		watch:       p.Watch,
		view:        p.View,
		viewCurrent: p.ViewCurrent,
		replace:     p.Replace,
		delete:      p.Delete,
		acquire:     p.Acquire,
		beat:        p.Beat,
		release:     p.Release,
		deleteAt:    p.DeleteAt,
		announce:    p.Announce,
	}
	sabotage(b)
	return b
}

func (b *brokenShared) Watch(changed func([]session.ID)) { b.watch(changed) }

func (b *brokenShared) View(ctx context.Context, id session.ID, f func(session.Item) error) error {
	return b.view(ctx, id, f)
}

func (b *brokenShared) ViewCurrent(ctx context.Context, id session.ID, f func(session.Item) error) error {
	return b.viewCurrent(ctx, id, f)
}

func (b *brokenShared) Replace(ctx context.Context, id session.ID, item session.Item) error {
	return b.replace(ctx, id, item)
}

func (b *brokenShared) Delete(ctx context.Context, id session.ID) error { return b.delete(ctx, id) }

func (b *brokenShared) Acquire(ctx context.Context, id session.ID, version uint64, holder session.Holder, seen session.Lease) (session.Lease, error) {
	return b.acquire(ctx, id, version, holder, seen)
}

func (b *brokenShared) Beat(ctx context.Context, id session.ID, lease session.Lease) error {
	return b.beat(ctx, id, lease)
}

func (b *brokenShared) Release(ctx context.Context, id session.ID, holder session.Holder) error {
	return b.release(ctx, id, holder)
}

func (b *brokenShared) DeleteAt(ctx context.Context, id session.ID, version uint64, holder session.Holder) error {
	return b.deleteAt(ctx, id, version, holder)
}

func (b *brokenShared) Announce(ctx context.Context, topic session.Topic, from session.Holder, text []byte) ([][]byte, error) {
	return b.announce(ctx, topic, from, text)
}

// sharedSaboteurs break one rule each. The check with the same name must fail.
var sharedSaboteurs = map[string][]func(b *brokenShared){
	"ViewCurrent/at once":              {currentIsCopy},
	"Watch/Replace":                    {replaceWithoutPush, pushesTooEarly},
	"Watch/Delete":                     {deleteWithoutPush, pushesTooEarly},
	"Watch/DeleteAt":                   {deleteAtWithoutPush, pushesTooEarly},
	"Watch/every change":               {replaceWithoutPush, copiesTooLate},
	"Acquire/free":                     {acquireForgets},
	"Acquire/held":                     {hidesLease, acquireAgain},
	"Acquire/missing":                  {missingIsConflict, acquireLocksMissing},
	"Acquire/other version":            {acquireAnyVersion, leasedBeforeVersion},
	"Acquire/as seen":                  {takeoverKeepsBeat, acquireNeverTakesOver},
	"Acquire/other than seen":          {acquireIgnoresBeat, acquireIgnoresHolder, freeMustEqualSeen},
	"Acquire/ids":                      {oneLeaseForAll},
	"Acquire/item":                     {beatWritesItem},
	"Replace/lease":                    {replaceFreesLease},
	"Beat/holder":                      {beatDoesNothing},
	"Beat/late":                        {beatLowers},
	"Beat/not the holder":              {beatOfAnyHolder, beatAcquires},
	"Release/holder":                   {releaseDoesNothing},
	"Release/not the holder":           {releaseAny, releaseOfOtherFails},
	"shared context":                   {acquireIgnoresContext},
	"DeleteAt/holder":                  {deleteAtDoesNothing},
	"DeleteAt/any holder":              {deleteAtZeroIsAHolder},
	"DeleteAt/other version":           {deleteAtAnyVersion},
	"DeleteAt/other holder":            {deleteAtIgnoresHolder},
	"DeleteAt/missing":                 {deleteAtMissingIsNil},
	"DeleteAt/lease":                   {leaseStays},
	"DeleteAt/lease of another":        {leaseStays},
	"Delete/lease":                     {leaseStays},
	"expired/lease":                    {leaseStays},
	"expired/DeleteAt":                 {deleteAtMissingIsNil},
	"concurrent/Acquire":               {acquireInTwoSteps},
	"concurrent/takeover":              {acquireInTwoSteps},
	"concurrent/takeover and Beat":     {acquireInTwoSteps},
	"concurrent/Acquire and Replace":   {acquireChecksVersionFirst},
	"concurrent/DeleteAt and Replace":  {deleteAtInTwoSteps},
	"concurrent/DeleteAt and takeover": {acquireInTwoSteps, deleteAtInTwoSteps},
	"Announce/all":                     {announceOwnOnly},
	"Announce/again":                   {announceAppends},
	"Announce/same text":               {announceMerges},
	"Announce/topics":                  {announceShortTopics},
	"Announce/bytes":                   {announceCuts},
	"concurrent/Announce":              {announceInTwoSteps},
	"lease lasts":                      {leaseExpiresEarly},
	"lease expires with its item":      {leaseStays},
	"announcements for a minute":       {announcementsStay, announcementsExpireEarly},
}

func allSharedChecks() []check { return slices.Concat(sharedChecks(), sharedAgingChecks) }

// tryShared runs a check on two processes that are broken in the same way. The time is
// fake, so that no broken store makes the test wait.
func tryShared(t *testing.T, sabotage func(*brokenShared), run func(a, b session.SharedStore) error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		d := newData(t)
		err := run(newBrokenShared(d.newProcess(), sabotage), newBrokenShared(d.newProcess(), sabotage))
		if err == nil {
			t.Error("got nil from the check of a broken store, want an error")
		} else {
			t.Logf("refused: %v", err)
		}
	})
}

func TestEverySharedCheckFailsOnABrokenStore(t *testing.T) {
	for _, c := range allSharedChecks() {
		t.Run(c.name, func(t *testing.T) {
			if len(sharedSaboteurs[c.name]) == 0 {
				t.Fatal("got no broken store for this check, want at least one")
			}
			for _, sabotage := range sharedSaboteurs[c.name] {
				tryShared(t, sabotage, func(a, b session.SharedStore) error { return c.run(newSharedProbe(a, b)) })
			}
		})
	}
	for name := range sharedSaboteurs {
		if !slices.ContainsFunc(allSharedChecks(), func(c check) bool { return c.name == name }) {
			t.Errorf("got a broken store for %q, want a check of this name", name)
		}
	}
}

// TestSharedProbesUseBothReads: on a shared store, the checks of all stores read with View
// as well as with ViewCurrent.
func TestSharedProbesUseBothReads(t *testing.T) {
	for name, sabotage := range map[string]func(*brokenShared){
		"no push":            replaceWithoutPush,
		"push before change": pushesTooEarly,
	} {
		t.Run(name, func(t *testing.T) {
			tryShared(t, sabotage, func(a, _ session.SharedStore) error { return replaceNext(newProbe(a)) })
		})
	}
	t.Run("current is a copy", func(t *testing.T) {
		tryShared(t, currentIsCopy, func(a, b session.SharedStore) error {
			p := newSharedProbe(a, b)
			return errors.Join(replaceNext(p), replaceOtherVersion(p))
		})
	})
}

// aMoment lets the other goroutines run.
func aMoment() { time.Sleep(time.Millisecond) }

// slowly delays the concurrent calls by less than aMoment, so that they run between the
// two steps of a broken call.
func slowly(b *brokenShared) {
	wait := func() { time.Sleep(time.Millisecond / 2) }
	b.replace = func(ctx context.Context, id session.ID, item session.Item) error {
		wait()
		return b.process.Replace(ctx, id, item)
	}
	b.acquire = func(ctx context.Context, id session.ID, version uint64, holder session.Holder, seen session.Lease) (session.Lease, error) {
		wait()
		return b.process.Acquire(ctx, id, version, holder, seen)
	}
	b.beat = func(ctx context.Context, id session.ID, lease session.Lease) error {
		wait()
		return b.process.Beat(ctx, id, lease)
	}
	b.deleteAt = func(ctx context.Context, id session.ID, version uint64, holder session.Holder) error {
		wait()
		return b.process.DeleteAt(ctx, id, version, holder)
	}
}

// currentIsCopy makes ViewCurrent always show the first version that it has read.
func currentIsCopy(b *brokenShared) {
	var copies sync.Map
	b.viewCurrent = func(ctx context.Context, id session.ID, f func(session.Item) error) error {
		item, err := b.read(ctx, id)
		if err != nil {
			return err
		}
		first, _ := copies.LoadOrStore(id, item)
		return f(first.(session.Item))
	}
}

func replaceWithoutPush(b *brokenShared) { b.replace = b.items.Replace }

func deleteWithoutPush(b *brokenShared) { b.delete = b.items.Delete }

func deleteAtWithoutPush(b *brokenShared) {
	b.deleteAt = func(ctx context.Context, id session.ID, _ uint64, _ session.Holder) error {
		return b.items.Delete(ctx, id)
	}
}

// ownCopies adds copies to a store, in addition to those of the correct one.
func ownCopies(b *brokenShared, keep func(id session.ID, item session.Item, copies *sync.Map)) *sync.Map {
	copies := new(sync.Map)
	b.view = func(ctx context.Context, id session.ID, f func(session.Item) error) error {
		if item, ok := copies.Load(id); ok {
			return f(item.(session.Item))
		}
		return b.process.View(ctx, id, func(item session.Item) error {
			keep(id, item, copies)
			return f(item)
		})
	}
	return copies
}

// pushesTooEarly calls changed, and drops the copy a minute later.
func pushesTooEarly(b *brokenShared) {
	copies := ownCopies(b, func(id session.ID, item session.Item, copies *sync.Map) { copies.Store(id, item) })
	b.watch = func(changed func([]session.ID)) {
		b.process.Watch(func(ids []session.ID) {
			changed(ids)
			time.AfterFunc(time.Minute, func() { copies.Delete(ids[0]) })
		})
	}
}

// copiesTooLate keeps a copy of an item, although a push has arrived during the read.
func copiesTooLate(b *brokenShared) {
	copies := ownCopies(b, func(id session.ID, item session.Item, copies *sync.Map) {
		time.Sleep(5 * time.Millisecond)
		copies.Store(id, item)
	})
	b.watch = func(changed func([]session.ID)) {
		b.process.Watch(func(ids []session.ID) {
			copies.Delete(ids[0])
			changed(ids)
		})
	}
	b.replace = func(ctx context.Context, id session.ID, item session.Item) error {
		aMoment()
		return b.process.Replace(ctx, id, item)
	}
}

func announceOwnOnly(b *brokenShared) {
	b.announce = func(_ context.Context, _ session.Topic, _ session.Holder, text []byte) ([][]byte, error) {
		return [][]byte{text}, nil
	}
}

func announceAppends(b *brokenShared) {
	b.announce = func(ctx context.Context, topic session.Topic, _ session.Holder, text []byte) ([][]byte, error) {
		return b.process.Announce(ctx, topic, newHolder(), text)
	}
}

func announceMerges(b *brokenShared) {
	b.announce = func(ctx context.Context, topic session.Topic, from session.Holder, text []byte) ([][]byte, error) {
		all, err := b.process.Announce(ctx, topic, from, text)
		slices.SortFunc(all, slices.Compare)
		return slices.CompactFunc(all, slices.Equal), err
	}
}

func announceShortTopics(b *brokenShared) {
	b.announce = func(ctx context.Context, topic session.Topic, from session.Holder, text []byte) ([][]byte, error) {
		topic[len(topic)-1] = 0
		return b.process.Announce(ctx, topic, from, text)
	}
}

func announceCuts(b *brokenShared) {
	b.announce = func(ctx context.Context, topic session.Topic, from session.Holder, text []byte) ([][]byte, error) {
		return b.process.Announce(ctx, topic, from, text[:min(len(text), announcementSize-1)])
	}
}

// announceInTwoSteps reads the announcements of a topic, and writes them in another step.
func announceInTwoSteps(b *brokenShared) {
	b.announce = func(ctx context.Context, topic session.Topic, from session.Holder, text []byte) ([][]byte, error) {
		b.mu.Lock()
		before := maps.Clone(b.topics[topic])
		b.mu.Unlock()
		aMoment()
		b.mu.Lock()
		b.topics[topic] = before
		b.mu.Unlock()
		return b.process.Announce(ctx, topic, from, text)
	}
}

func announcementsStay(b *brokenShared) { b.announcementLife = 24 * time.Hour }

func announcementsExpireEarly(b *brokenShared) { b.announcementLife = 30 * time.Second }
