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

func TestReference(t *testing.T) {
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

// brokenShared is a good shared store with some calls replaced by bad ones.
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

// sharedSaboteurs break one rule each, in one way or another: the check under
// the same name must notice.
var sharedSaboteurs = map[string][]func(b *brokenShared){
	"ViewCurrent/at once":              {currentIsCopy},
	"Watch/Replace":                    {replaceUnseen, tellsTooEarly},
	"Watch/Delete":                     {deleteUnseen, tellsTooEarly},
	"Watch/DeleteAt":                   {deleteAtUnseen, tellsTooEarly},
	"Watch/every change":               {replaceUnseen, copiesTooLate},
	"Acquire/free":                     {acquireForgets},
	"Acquire/held":                     {hidesLease, acquireAgain},
	"Acquire/missing":                  {missingIsConflict, acquireLocksMissing},
	"Acquire/other version":            {acquireAnyVersion, leasedBeforeVersion},
	"Acquire/as seen":                  {takeoverKeepsBeat, acquireNeverTakesOver},
	"Acquire/seen otherwise":           {acquireIgnoresBeat, acquireIgnoresHolder, seenMustBeThere},
	"Acquire/each its own":             {oneLeaseForAll},
	"Acquire/item":                     {beatWritesItem},
	"Replace/lease":                    {replaceFreesLease},
	"Beat/holder":                      {beatDoesNothing},
	"Beat/late":                        {beatLowers},
	"Beat/not the holder":              {beatOfAnybody, beatWithoutItem},
	"Release/holder":                   {releaseDoesNothing},
	"Release/not the holder":           {releaseAny, releaseComplains},
	"shared context":                   {acquireIgnoresContext},
	"DeleteAt/holder":                  {deleteAtDoesNothing},
	"DeleteAt/any holder":              {deleteAtZeroIsAName},
	"DeleteAt/other version":           {deleteAtAnyVersion},
	"DeleteAt/other holder":            {deleteAtAnyHolderWhatever},
	"DeleteAt/missing":                 {deleteAtMissingIsNil},
	"DeleteAt/lease":                   {leaseStays},
	"DeleteAt/lease of another":        {leaseStays},
	"Delete/lease":                     {leaseStays},
	"expired/lease":                    {leaseStays},
	"expired/DeleteAt":                 {deleteAtMissingIsNil},
	"concurrent/Acquire":               {acquireInTwoSteps},
	"concurrent/takeover":              {acquireInTwoSteps},
	"concurrent/takeover and Beat":     {acquireInTwoSteps},
	"concurrent/Acquire and Replace":   {acquireLooksAtVersionFirst},
	"concurrent/DeleteAt and Replace":  {deleteAtInTwoSteps},
	"concurrent/DeleteAt and takeover": {acquireInTwoSteps, deleteAtInTwoSteps},
	"Announce/all":                     {announceOwnOnly},
	"Announce/again":                   {announceAppends},
	"Announce/same note":               {announceMerges},
	"Announce/topics":                  {announceShortTopics},
	"Announce/bytes":                   {announceCuts},
	"concurrent/Announce":              {announceInTwoSteps},
	"lease lasts":                      {leaseRunsOut},
	"lease expires with its item":      {leaseStays},
	"notes for a minute":               {notesStay, notesLeaveEarly},
}

func allSharedChecks() []check { return slices.Concat(sharedChecks(), sharedAgingChecks) }

// tryShared runs a check on two processes of which both are broken in the same
// way. Time is fake, so that no broken store makes the test wait.
func tryShared(t *testing.T, sabotage func(*brokenShared), run func(a, b session.SharedStore) error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		d := newData(t)
		err := run(newBrokenShared(d.newProcess(), sabotage), newBrokenShared(d.newProcess(), sabotage))
		if err == nil {
			t.Error("the broken store passed")
		} else {
			t.Logf("refused: %v", err)
		}
	})
}

func TestEverySharedCheckRefusesABrokenStore(t *testing.T) {
	for _, c := range allSharedChecks() {
		t.Run(c.name, func(t *testing.T) {
			if len(sharedSaboteurs[c.name]) == 0 {
				t.Fatal("no broken store shows that this check can fail")
			}
			for _, sabotage := range sharedSaboteurs[c.name] {
				tryShared(t, sabotage, func(a, b session.SharedStore) error { return c.run(newSharedProbe(a, b)) })
			}
		})
	}
	for name := range sharedSaboteurs {
		if !slices.ContainsFunc(allSharedChecks(), func(c check) bool { return c.name == name }) {
			t.Errorf("there is a broken store for %q, but no such check", name)
		}
	}
}

// TestSharedProbesSeeBothReads shows that the checks of every store, run on a
// shared one, look at its copies as well as past them.
func TestSharedProbesSeeBothReads(t *testing.T) {
	for name, sabotage := range map[string]func(*brokenShared){
		"no push":            replaceUnseen,
		"push before change": tellsTooEarly,
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

// aMoment lets every other goroutine go as far as it can.
func aMoment() { time.Sleep(time.Millisecond) }

// slowly delays the calls that others race with by less than a moment, so that
// they fall between the two steps of a call that is made of two.
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

// currentIsCopy shows for ever what it has shown first.
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

func replaceUnseen(b *brokenShared) { b.replace = b.items.Replace }

func deleteUnseen(b *brokenShared) { b.delete = b.items.Delete }

func deleteAtUnseen(b *brokenShared) {
	b.deleteAt = func(ctx context.Context, id session.ID, _ uint64, _ session.Holder) error {
		return b.items.Delete(ctx, id)
	}
}

// ownCopies gives a store copies over those of the good one.
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

// tellsTooEarly calls changed, and drops its copy in the next minute.
func tellsTooEarly(b *brokenShared) {
	copies := ownCopies(b, func(id session.ID, item session.Item, copies *sync.Map) { copies.Store(id, item) })
	b.watch = func(changed func([]session.ID)) {
		b.process.Watch(func(ids []session.ID) {
			changed(ids)
			time.AfterFunc(time.Minute, func() { copies.Delete(ids[0]) })
		})
	}
}

// copiesTooLate makes a copy of what it has read, although it was told of the
// change in between.
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
		return b.process.Announce(ctx, topic, from, text[:min(len(text), noteSize-1)])
	}
}

// announceInTwoSteps writes back what it has read before.
func announceInTwoSteps(b *brokenShared) {
	b.announce = func(ctx context.Context, topic session.Topic, from session.Holder, text []byte) ([][]byte, error) {
		b.mu.Lock()
		before := maps.Clone(b.notes[topic])
		b.mu.Unlock()
		aMoment()
		b.mu.Lock()
		b.notes[topic] = before
		b.mu.Unlock()
		return b.process.Announce(ctx, topic, from, text)
	}
}

func notesStay(b *brokenShared) { b.noteLife = 24 * time.Hour }

func notesLeaveEarly(b *brokenShared) { b.noteLife = 30 * time.Second }
