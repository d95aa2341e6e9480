package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// noteSize is what a store has to take.
const noteSize = 4096

var noteChecks = []check{
	{
		"Announce/all",
		"Announce returns the notes of all processes on the topic, this one's included.",
		announceAll,
	},
	{
		"Announce/again",
		"Announce keeps a note in place of the one before of the same process.",
		announceAgain,
	},
	{
		"Announce/same note",
		"Notes are told apart by who made them, not by what they say.",
		announceSame,
	},
	{
		"Announce/topics",
		"Topics are kept apart by all bytes of their name.",
		announceTopics,
	},
	{
		"Announce/bytes",
		"A note is any bytes, 4 KiB at most.",
		announceBytes,
	},
	{
		"concurrent/Announce",
		"Announce is one step: of many at a time none is lost.",
		concurrentAnnounce,
	},
}

func (s peer) announces(topic session.Topic, from session.Holder, note string, want ...string) error {
	got, err := s.Announce(s.ctx, topic, from, []byte(note))
	if err != nil {
		return wantNil("Announce", err)
	}
	notes := make([]string, len(got))
	for i, n := range got {
		notes[i] = string(n)
	}
	slices.Sort(notes)
	slices.Sort(want)
	if !slices.Equal(notes, want) {
		return fmt.Errorf("Announce: got %d notes, %.60q, want %d, %.60q", len(notes), notes, len(want), want)
	}
	return nil
}

func newTopic() session.Topic { return session.Topic(newID()) }

func announceAll(p probe) error {
	topic := newTopic()
	return errors.Join(
		p.a.announces(topic, newHolder(), "first", "first"),
		p.b.announces(topic, newHolder(), "second", "first", "second"),
		p.a.announces(topic, newHolder(), "third", "first", "second", "third"),
	)
}

func announceAgain(p probe) error {
	topic, first, second := newTopic(), newHolder(), newHolder()
	return errors.Join(
		p.a.announces(topic, first, "one", "one"),
		p.b.announces(topic, second, "two", "one", "two"),
		p.a.announces(topic, first, "new", "new", "two"),
		p.a.announces(topic, first, "new", "new", "two"),
		p.b.announces(topic, second, "", "new", ""),
	)
}

func announceSame(p probe) error {
	topic := newTopic()
	return errors.Join(
		p.a.announces(topic, newHolder(), "same", "same"),
		p.b.announces(topic, newHolder(), "same", "same", "same"),
	)
}

func announceTopics(p probe) error {
	first, from := newTopic(), newHolder()
	second, third := first, first
	second[0] ^= 1
	third[len(third)-1] ^= 1
	return errors.Join(
		p.a.announces(first, from, "first", "first"),
		p.b.announces(second, from, "second", "second"),
		p.a.announces(third, from, "third", "third"),
		p.b.announces(first, newHolder(), "more", "first", "more"),
	)
}

func announceBytes(p probe) error {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	long := string(bytes.Repeat(all, noteSize/len(all)))
	topic, first, second := newTopic(), newHolder(), newHolder()
	return errors.Join(
		p.a.announces(topic, first, long, long),
		p.b.announces(topic, second, long[:noteSize-1], long, long[:noteSize-1]),
		p.a.announces(topic, first, "\x00", "\x00", long[:noteSize-1]),
	)
}

func concurrentAnnounce(p probe) error {
	topic, from := newTopic(), newHolder()
	want := []string{"last"}
	for i := range 2 * racers {
		want = append(want, string(rune('a'+i)))
	}
	errs := together(2*racers, func(i int) error {
		_, err := p.racer(i).Announce(p.ctx, topic, newHolder(), []byte(want[1+i]))
		return wantNil("Announce", err)
	})
	return errors.Join(append(errs, p.b.announces(topic, from, "last", slices.Clone(want)...))...)
}
