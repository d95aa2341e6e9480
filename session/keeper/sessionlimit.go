package keeper

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// A login first writes its session, then lists those of its user, and ends the oldest ones
// beyond SessionLimit. Of several logins at once, the last one to list sees all of them.
// Each ranks them by place and ID, so all agree which ones end.

// placeLogin sets the place of a new session among those of its user: behind all others,
// also if the clock of this instance is slow.
func (k *Keeper) placeLogin(ctx context.Context, rec *record, user Identity) error {
	if k.SessionLimit == 0 || user.Subject == "" {
		return nil
	}
	others, err := k.userSessions(ctx, user.Subject)
	if err != nil {
		return fmt.Errorf("looking for other sessions of the user: %w", err)
	}
	rec.order = milliseconds(rec.created)
	for _, l := range others {
		rec.order = max(rec.order, l.place()+1)
	}
	return nil
}

// limitSessions ends the oldest sessions of a user beyond SessionLimit, except the one that
// the login replaces.
func (k *Keeper) limitSessions(ctx context.Context, user Identity) error {
	if k.SessionLimit == 0 || user.Subject == "" {
		return nil
	}
	sessions, err := k.userSessions(ctx, user.Subject)
	if err != nil {
		return fmt.Errorf("counting the sessions of the user: %w", err)
	}
	if user.Replaces != (seal.Secret{}) {
		replaced := k.Site.Ref(user.Replaces).ID
		sessions = slices.DeleteFunc(sessions, func(l Listed) bool { return l.ID == replaced })
	}
	if len(sessions) <= k.SessionLimit {
		return nil
	}
	slices.SortFunc(sessions, func(a, b Listed) int { // the newest first
		return cmp.Or(cmp.Compare(b.place(), a.place()), compareIDs(b.ID, a.ID))
	})
	var oldest []session.ID
	for _, l := range sessions[k.SessionLimit:] {
		oldest = append(oldest, l.ID)
	}
	_, err = k.endAll(ctx, oldest, EndSessionLimit)
	return err
}

// place is the place of a session among those of its user. A session without a readable
// label is the oldest.
func (l Listed) place() uint64 {
	if l.Label == nil {
		return 0
	}
	return max(l.Label.order, milliseconds(l.Label.Created))
}

func milliseconds(t time.Time) uint64 { return uint64(max(0, t.UnixMilli())) }
