package keeper

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// Sites are the keepers of one Vault, one for each site. They list and end sessions for an
// operator, who has no cookie. Decision 0039 has the reasons.
type Sites []*Keeper

// Listed is one session in a list.
type Listed struct {
	// ID names the session for EndByID. It opens nothing.
	ID session.ID
	// Keeper is the one whose site has the session. It is nil if that is not known, because
	// the label does not open.
	Keeper *Keeper
	// Label is nil if Err is not.
	Label *Label
	// Err is ErrNoLabel, or the error of opening the label.
	Err error
}

// ErrNoLabel means that a release without labels was the last to write a session.
var ErrNoLabel = errors.New("the session has no label: an earlier release has written it last")

// List returns the sessions of the vault with an ID that is greater than after, in
// ascending order: the first limit ones, or all if there are fewer. next is the argument
// after for the next page; zero: there is none. The zero ID as after begins the list.
//
// A session that exists during the whole list is in it once. Sessions that begin or end
// meanwhile may be missing. Sessions that an earlier release has written are in it after
// their next write. The error is an *UnavailableError, or that of ctx.
func (s Sites) List(ctx context.Context, after session.ID, limit int) (page []Listed, next session.ID, err error) {
	for len(s) > 0 && len(page) < limit {
		want := min(limit-len(page), session.MaxListed)
		ids, err := s[0].Vault.store.List(ctx, after, want)
		if err == nil {
			var part []Listed
			part, err = s.describe(ctx, ids)
			page = append(page, part...)
		}
		if err != nil {
			return nil, session.ID{}, listError(ctx, err)
		}
		if len(ids) < want {
			return page, session.ID{}, nil
		}
		after = ids[len(ids)-1]
	}
	return page, after, nil
}

// ListUser is List for the sessions of one user, by the claim `sub`. It includes sessions
// without a label. Of more than session.MaxTagged sessions some may be missing.
func (s Sites) ListUser(ctx context.Context, subject string, after session.ID, limit int) (page []Listed, next session.ID, err error) {
	for _, k := range s {
		sessions, err := k.userSessions(ctx, subject)
		if err != nil {
			return nil, session.ID{}, listError(ctx, err)
		}
		page = append(page, sessions...)
	}
	slices.SortFunc(page, func(a, b Listed) int { return compareIDs(a.ID, b.ID) })
	page = slices.DeleteFunc(page, func(l Listed) bool { return compareIDs(l.ID, after) <= 0 })
	if len(page) > limit {
		page = page[:limit]
		next = page[limit-1].ID
	}
	return page, next, nil
}

// Counts are numbers of sessions.
type Counts struct {
	// BySite has the sessions of each keeper's site.
	BySite map[*Keeper]int
	// Unreadable is the number of sessions with a label that does not open.
	Unreadable int
}

// Count counts the sessions of the vault. It reads the whole list.
func (s Sites) Count(ctx context.Context) (Counts, error) {
	counts := Counts{BySite: map[*Keeper]int{}}
	err := s.each(ctx, func(page []Listed) error {
		for _, l := range page {
			if l.Keeper == nil {
				counts.Unreadable++
			} else {
				counts.BySite[l.Keeper]++
			}
		}
		return nil
	})
	return counts, err
}

// each calls f with all pages of the list.
func (s Sites) each(ctx context.Context, f func(page []Listed) error) error {
	var after session.ID
	for {
		page, next, err := s.List(ctx, after, session.MaxListed)
		if err == nil {
			err = f(page)
		}
		if err != nil || next == (session.ID{}) {
			return err
		}
		after = next
	}
}

func compareIDs(a, b session.ID) int { return bytes.Compare(a[:], b[:]) }

func listError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return unavailable(fmt.Errorf("listing sessions: %w", err))
}

// describe returns the sessions under ids that exist, with their labels.
func (s Sites) describe(ctx context.Context, ids []session.ID) (page []Listed, err error) {
	now, v := time.Now(), s[0].Vault
	for chunk := range slices.Chunk(ids, session.MaxListed) {
		found, err := v.store.Labels(ctx, chunk)
		if err != nil {
			return nil, err
		}
		for _, f := range found {
			if v.overlay.get(f.ID).isEnd() {
				continue // it has ended in this process, and the store will delete it
			}
			l := s.open(f)
			if l.Label != nil {
				l.Label.LastUsed = latest(l.Label.LastUsed, v.lastUse(f.ID, now))
			}
			page = append(page, l)
		}
	}
	return page, nil
}

// open opens a label with the first keeper that can.
func (s Sites) open(f session.Labelled) Listed {
	l := Listed{ID: f.ID, Err: ErrNoLabel}
	if len(f.Label) == 0 {
		return l
	}
	for _, k := range s {
		if l.Label, l.Err = openLabel(k.Site, f.ID, f.Label); l.Err == nil {
			l.Keeper = k
			return l
		}
	}
	return l
}

// userSessions returns the sessions of a user, in ascending order of their IDs.
func (k *Keeper) userSessions(ctx context.Context, subject string) ([]Listed, error) {
	var ids []session.ID
	for _, t := range k.Site.LogoutTargets("", subject) {
		tagged, err := k.Vault.store.Tagged(ctx, t.Tag)
		if err != nil {
			return nil, err
		}
		ids = append(ids, tagged...)
	}
	slices.SortFunc(ids, compareIDs)
	sessions, err := Sites{k}.describe(ctx, slices.Compact(ids))
	for i := range sessions {
		sessions[i].Keeper = k // its tag shows the site, also without a label
	}
	return sessions, err
}
