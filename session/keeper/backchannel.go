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

// Logout is a logout token of the authorization server (OpenID Connect Back-Channel
// Logout 1.0).
type Logout struct {
	// SID is the server's own session (`sid`). With SID alone, the sessions with this
	// sid end. With Subject alone (`sub`), all sessions of the user end. With both,
	// a session ends if both match, or if its subject matches and it has no sid.
	SID, Subject string
	// IssuedAt is when the server issued the token, by its own clock (`iat`).
	IssuedAt time.Time
	// Token identifies the token among all tokens of the server.
	Token string
	// Until is when the token expires. The keeper remembers it until then.
	Until time.Time
}

const (
	// logoutTimeout bounds a logout by the server, however many sessions it ends. The
	// server's next try ends the rest.
	logoutTimeout = 20 * time.Second
	// markerRetention is how long a logout marker keeps logins in progress from
	// becoming sessions. It is longer than the time from a login's code to its
	// session: the time limits of three requests to the server and one to the store.
	markerRetention = 2 * time.Minute
	// maxConcurrentEnds bounds the sessions that one logout ends at a time.
	maxConcurrentEnds = 16
)

// EndByServerLogout ends the sessions that the authorization server has logged out, at
// all instances, and returns their number.
//
// The error is ErrReplayed, or an *UnavailableError if the store failed. In that case the
// sessions that were found have ended in this process, and the server must repeat the
// logout.
//
// A logout also ends logins in progress: Create fails, at any instance, if the server
// issued the tokens before the logout or in the same second. Sessions that a release
// without tags has written are found after their next write.
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
	// The logout writes its marker, then searches for sessions. Create writes its item,
	// then reads the markers. At least one of them finds the other.
	targets := k.Site.LogoutTargets(l.SID, l.Subject)
	for _, t := range targets {
		if err := k.writeMarker(ctx, t.Tags(), l.IssuedAt); err != nil {
			return 0, logoutError(err)
		}
	}
	for _, t := range targets {
		ended, err := k.endTarget(ctx, t, targets, EndBackchannel)
		if n += ended; err != nil {
			return n, logoutError(err)
		}
	}
	// The token is remembered only now, so that the server can repeat a failed logout.
	err = k.Vault.store.Create(ctx, token, session.Item{Version: 1, Expires: l.Until})
	if err != nil && !errors.Is(err, session.ErrConflict) {
		return n, logoutError(err)
	}
	return n, nil
}

func logoutError(err error) error {
	return unavailable(fmt.Errorf("ending the sessions of a logout: %w", err))
}

// endTarget ends the sessions that have all tags of a target, and returns their number.
func (k *Keeper) endTarget(ctx context.Context, t seal.LogoutTarget, targets []seal.LogoutTarget, reason EndReason) (n int, err error) {
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
		ended, err := k.endAll(ctx, ids, reason)
		// A full list may be incomplete.
		if n += ended; err != nil || ended == 0 || !full {
			return n, err
		}
	}
}

// filterBySubject returns those of the items with the sid of a logout that also belong to
// its subject. A store lists items by one tag only, and its lists are limited: if a list
// of the subject is full, filterBySubject returns all items, because the server has named
// their session.
//
// It searches the subject under every key, after the sid: an item that gets the tags of
// another key in between is found under that key.
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

// endAll ends sessions in parallel. It returns the number of those that existed, and the
// first error.
func (k *Keeper) endAll(ctx context.Context, ids []session.ID, reason EndReason) (int, error) {
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
			found, err := k.endListed(ctx, id, reason)
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

// endListed ends one session and reports whether it existed: a list may name items that
// are gone.
func (k *Keeper) endListed(ctx context.Context, id session.ID, reason EndReason) (found bool, err error) {
	labelled, err := k.Vault.store.Labels(ctx, []session.ID{id})
	if err != nil || len(labelled) == 0 {
		return false, err
	}
	e := ending{reason: reason}
	if label, err := openLabel(k.Site, id, labelled[0].Label); err == nil {
		e.subject = label.Subject
	}
	k.leaveNotice(ctx, id, reason)
	var ended *EndedError
	if errors.As(k.endSession(ctx, id, e), &ended) && !k.Vault.hasUnwritten(id) {
		return true, nil
	}
	// The session has ended in this process, now or earlier, but the store still has it:
	// other processes would go on serving it.
	return true, k.Vault.store.Delete(ctx, id)
}

// exists returns nil if the store has an item now, or else the error of reading it.
func (k *Keeper) exists(ctx context.Context, id session.ID) error {
	return k.Vault.viewCurrent(ctx, id, func(session.Item) error { return nil })
}

// logoutMarker is the time of the last logout of the sessions with certain tags. Logins in
// progress read it.
type logoutMarker struct {
	version  uint64
	issuedAt time.Time
	// unreadable means that there was a logout, at an unknown time.
	unreadable bool
}

// readMarker reads a logout marker: eight bytes, big-endian seconds since 1970.
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

// markerID returns the ID of the logout marker for a tag, or for several tags together. It
// is the ID of no session, because no secret leads to it.
func markerID(tags ...session.Tag) session.ID {
	parts := make([][]byte, len(tags))
	for i := range tags {
		parts[i] = tags[i][:]
	}
	return seal.Digest("oauth_session logged out v1", parts...)
}

// markerRetry is the pause between tries to write a marker.
const markerRetry = 100 * time.Millisecond

// writeMarker writes the marker of a logout, for logins in progress.
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
		// A conflict means that another logout writes the same marker. If it persists,
		// the marker has expired by this clock but not yet by the store's.
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

// endIfLoggedOut ends a session that was just written if the server has logged it out
// before. After any error the caller must not give out the session's secret.
func (k *Keeper) endIfLoggedOut(ctx context.Context, id session.ID, user Identity, tags []session.Tag) error {
	markers := make([]session.ID, 0, len(tags)+1)
	for _, tag := range tags {
		markers = append(markers, markerID(tag))
	}
	if len(tags) > 1 {
		markers = append(markers, markerID(tags...)) // of a logout with sid and sub
	}
	for _, marker := range markers {
		last, err := k.readMarker(ctx, marker)
		switch {
		case errors.Is(err, session.ErrNotFound):
		case err != nil:
			return err
		case last.unreadable, !user.IssuedAt.After(last.issuedAt):
			_ = k.endSession(ctx, id, ending{EndBackchannel, user.Subject})
			return ErrLoggedOut
		}
	}
	return nil
}

// deleteCreated deletes an item whose secret no browser has. If that fails, the item stays
// until it expires.
func (k *Keeper) deleteCreated(id session.ID) {
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	_ = k.Vault.store.Delete(ctx, id)
}
