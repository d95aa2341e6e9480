package keeper

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// Logout is what an authorization server says is over.
type Logout struct {
	// SID names its session with the user; empty: all that it has with Subject.
	// With both, a session ends if both are its own, or if its subject is and the
	// server never told its sid.
	SID, Subject string
	// IssuedAt is when the server said so, by its own clock.
	IssuedAt time.Time
	// Token tells this message from every other one of the server.
	Token string
	// Until is when the message would not be accepted any more: so long it is
	// remembered.
	Until time.Time
}

const (
	// logoutTimeout bounds a logout by the server, however many sessions it ends.
	// What is left then ends when the server tries again.
	logoutTimeout = 20 * time.Second
	// loggedOutKept is how long logins that were under way are kept from becoming
	// sessions: longer than one takes from its code to its session, which is the
	// time limits of three requests to the server, and one to the store.
	markerRetention   = 2 * time.Minute
	maxConcurrentEnds = 16
)

// EndByServerLogout ends the sessions that the authorization server says are over, at
// all instances, and returns how many there were.
//
// The error is ErrReplayed, or an *UnavailableError if the store did not take
// everything: then sessions that were found are over in this process, and it has
// to be tried again.
//
// A login under way counts as well: if the server issued its tokens before the
// logout, it ends in Create, at any instance. What the server issued in the same
// second counts as before. Sessions that were written by an earlier release are
// found after their next write.
func (k *Keeper) EndByServerLogout(ctx context.Context, l Logout) (n int, err error) {
	if l.SID == "" && l.Subject == "" {
		return 0, nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), logoutTimeout)
	defer cancel()
	token := session.ID(k.Site.Digest("oauth_session logout token v1", []byte(l.Token)))
	switch err := k.exists(ctx, token); {
	case err == nil:
		return 0, ErrReplayed
	case !errors.Is(err, session.ErrNotFound):
		return 0, logoutError(err)
	}
	// Marks come before the search, and in Create the item before the look at the
	// marks: one of the two finds the other.
	targets := k.Site.LogoutTargets(l.SID, l.Subject)
	for _, t := range targets {
		if err := k.writeMarker(ctx, t.Tags(), l.IssuedAt); err != nil {
			return 0, logoutError(err)
		}
	}
	for _, t := range targets {
		ended, err := k.endTarget(ctx, t, targets)
		if n += ended; err != nil {
			return n, logoutError(err)
		}
	}
	// Remembered only now: whoever tries again after a failure must be heard.
	err = k.Vault.store.Create(ctx, token, session.Item{Version: 1, Expires: l.Until})
	if err != nil && !errors.Is(err, session.ErrConflict) {
		return n, logoutError(err)
	}
	return n, nil
}

func logoutError(err error) error {
	return unavailable(fmt.Errorf("ending the sessions of a logout: %w", err))
}

// endTarget ends the sessions that carry all tags of one of the targets.
func (k *Keeper) endTarget(ctx context.Context, t seal.LogoutTarget, targets []seal.LogoutTarget) (n int, err error) {
	for {
		ids, err := k.Vault.store.Tagged(ctx, t.Tag)
		if err != nil {
			return n, err
		}
		full := len(ids) >= session.MaxTagged
		if t.Subject != nil && len(ids) > 0 {
			if ids, err = k.filterBySubject(ctx, ids, targets); err != nil {
				return n, err
			}
		}
		ended, err := k.endAll(ctx, ids)
		// Of a full list there may be more behind it.
		if n += ended; err != nil || ended == 0 || !full {
			return n, err
		}
	}
}

// ofSubject returns those of the items with the sid of a logout that also belong
// to its subject. A store lists items by one tag, and need not show the tags of
// an item. Its lists are limited: an item that is missing in a full one counts as
// the subject's, because the server has named its session.
//
// The subject is searched under every key, and after the sid: an item that moves
// to another key meanwhile is found under that.
func (k *Keeper) filterBySubject(ctx context.Context, ids []session.ID, targets []seal.LogoutTarget) ([]session.ID, error) {
	listed := map[session.ID]bool{}
	for _, t := range targets {
		if t.Subject == nil {
			continue
		}
		all, err := k.Vault.store.Tagged(ctx, *t.Subject)
		if err != nil {
			return nil, err
		}
		if len(all) >= session.MaxTagged {
			return ids, nil
		}
		for _, id := range all {
			listed[id] = true
		}
	}
	var both []session.ID
	for _, id := range ids {
		if listed[id] {
			both = append(both, id)
		}
	}
	return both, nil
}

func (k *Keeper) endAll(ctx context.Context, ids []session.ID) (int, error) {
	var (
		ended atomic.Int64
		all   sync.WaitGroup
		once  sync.Once
		first error
	)
	slots := make(chan struct{}, maxConcurrentEnds)
	for _, id := range ids {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			found, err := k.endListed(ctx, id)
			if err != nil {
				once.Do(func() { first = err })
			}
			if found {
				ended.Add(1)
			}
		})
	}
	all.Wait()
	return int(ended.Load()), first
}

// endListed ends one session, and reports whether there was one: a list may be
// out of date.
func (k *Keeper) endListed(ctx context.Context, id session.ID) (found bool, err error) {
	if err := k.exists(ctx, id); errors.Is(err, session.ErrNotFound) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	var ended *EndedError
	if errors.As(k.endSession(ctx, id, EndBackchannel), &ended) && !k.Vault.hasUnwritten(id) {
		return true, nil
	}
	// It is over in this process, or was before although the store still has it,
	// and the others must learn of it.
	return true, k.Vault.store.Delete(ctx, id)
}

// exists returns nil if there is an item now, and else the error of reading it.
func (k *Keeper) exists(ctx context.Context, id session.ID) error {
	return k.Vault.viewCurrent(ctx, id, func(session.Item) error { return nil })
}

// logoutMarker is the time of the last logout of what has certain tags, for the
// logins that are under way.
type logoutMarker struct {
	version  uint64
	issuedAt time.Time
	// unreadable: there was a logout, and its time is not known.
	unreadable bool
}

func (k *Keeper) readMarker(ctx context.Context, id session.ID) (m logoutMarker, err error) {
	err = k.Vault.viewCurrent(ctx, id, func(item session.Item) error {
		m.version = item.Version
		if m.unreadable = len(item.Value) != 8; !m.unreadable {
			m.issuedAt = time.Unix(int64(binary.BigEndian.Uint64(item.Value)), 0)
		}
		return nil
	})
	if m.unreadable {
		k.Observe(Event{Kind: EventUnreadable, ID: id, Err: &seal.UnreadableError{Part: seal.PartLogoutMarker}})
	}
	return m, err
}

// markID is where the store keeps the last logout of what has a tag, or several
// at once. No session is under it, as no secret leads there.
func markerID(tags ...session.Tag) session.ID {
	parts := make([][]byte, len(tags))
	for i := range tags {
		parts[i] = tags[i][:]
	}
	return seal.Digest("oauth_session logged out v1", parts...)
}

// markAgain is the pause between tries to write a mark.
const markerRetry = 100 * time.Millisecond

// markLoggedOut notes a logout for the logins that are under way.
func (k *Keeper) writeMarker(ctx context.Context, tags []session.Tag, at time.Time) error {
	id := markerID(tags...)
	for tries := 1; ; tries++ {
		last, err := k.readMarker(ctx, id)
		if err != nil && !errors.Is(err, session.ErrNotFound) {
			return err
		}
		latest := at
		if last.issuedAt.After(at) {
			latest = last.issuedAt
		}
		item := session.Item{
			Version: last.version + 1, Expires: time.Now().Add(markerRetention),
			Value: binary.BigEndian.AppendUint64(nil, uint64(latest.Unix())),
		}
		write := k.Vault.store.Create
		if err == nil {
			write = k.Vault.store.Replace
		}
		// A conflict is somebody who marks the same, or, time after time, a mark
		// that is over by the clock here and not yet by the store's.
		if err := write(ctx, id, item); !errors.Is(err, session.ErrConflict) {
			return err
		}
		if tries > immediateRetries && !sleep(ctx, markerRetry) {
			return ctx.Err()
		}
		if tries > 2*immediateRetries && errors.Is(err, session.ErrNotFound) {
			if err := k.Vault.store.Delete(ctx, id); err != nil {
				return err
			}
		}
	}
}

// endIfLoggedOut ends a session that was just created if a logout was faster.
// If that cannot be told, nobody gets its secret.
func (k *Keeper) endIfLoggedOut(ctx context.Context, id session.ID, who Identity, tags []session.Tag) error {
	marks := make([]session.ID, 0, len(tags)+1)
	for _, tag := range tags {
		marks = append(marks, markerID(tag))
	}
	if len(tags) > 1 {
		marks = append(marks, markerID(tags...)) // of a logout that names both
	}
	for _, mark := range marks {
		last, err := k.readMarker(ctx, mark)
		switch {
		case errors.Is(err, session.ErrNotFound):
		case err != nil:
			return err
		case last.unreadable, !who.IssuedAt.After(last.issuedAt):
			_ = k.endSession(ctx, id, EndBackchannel)
			return ErrLoggedOut
		}
	}
	return nil
}

// dropCreated deletes what no cookie leads to. If that fails it stays until it
// expires.
func (k *Keeper) deleteCreated(id session.ID) {
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	_ = k.Vault.store.Delete(ctx, id)
}
