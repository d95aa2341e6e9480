package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// announcementSize is the size in bytes that a store must accept.
const announcementSize = 4096

var announceChecks = []check{
	{
		"Announce/all",
		"Announce returns the announcements of all processes on the topic, including this one.",
		announceAll,
	},
	{
		"Announce/again",
		"Announce replaces the previous announcement of the process.",
		announceAgain,
	},
	{
		"Announce/same text",
		"Announce keeps equal announcements of two processes apart.",
		announceSame,
	},
	{
		"Announce/topics",
		"Topics are kept apart by all their bytes.",
		announceTopics,
	},
	{
		"Announce/bytes",
		"An announcement is any bytes, at most 4 KiB.",
		announceBytes,
	},
	{
		"concurrent/Announce",
		"Announce is one step: concurrent calls lose no announcement.",
		concurrentAnnounce,
	},
}

func (s peer) announces(topic session.Topic, from session.Holder, text string, want ...string) error {
	got, err := s.Announce(s.ctx, topic, from, []byte(text))
	if err != nil {
		return wantNil("Announce", err)
	}
	texts := make([]string, len(got))
	for i, announcement := range got {
		texts[i] = string(announcement)
	}
	slices.Sort(texts)
	slices.Sort(want)
	if !slices.Equal(texts, want) {
		return fmt.Errorf("Announce: got %d announcements, %.60q, want %d, %.60q", len(texts), texts, len(want), want)
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
	long := string(bytes.Repeat(all, announcementSize/len(all)))
	topic, first, second := newTopic(), newHolder(), newHolder()
	return errors.Join(
		p.a.announces(topic, first, long, long),
		p.b.announces(topic, second, long[:announcementSize-1], long, long[:announcementSize-1]),
		p.a.announces(topic, first, "\x00", "\x00", long[:announcementSize-1]),
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
