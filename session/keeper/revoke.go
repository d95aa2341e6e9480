package keeper

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// The sessions that an operator ends have the reason EndRevoked. They end like those that
// the authorization server logs out: at all instances, with their streams, and during a
// refresh. Their tokens are not revoked at the authorization server, because the keeper
// cannot open a record without its cookie.

// EndByID ends the session with an ID, and reports whether there was one. The error is an
// *UnavailableError, or that of ctx. The session may then have ended in this process
// alone, and the caller repeats the call.
func (s Sites) EndByID(ctx context.Context, id session.ID) (found bool, err error) {
	if len(s) == 0 {
		return false, nil
	}
	labels, err := s[0].Vault.store.Labels(ctx, []session.ID{id})
	if err == nil && len(labels) > 0 {
		k := s.open(labels[0]).Keeper
		if k == nil {
			k = s[0]
		}
		found, err = k.endListed(ctx, id, EndRevoked)
	}
	return found, revokeError(ctx, err)
}

// EndUser ends all sessions of a user, by the claim `sub`, and returns their number. After
// an error, which is that of EndByID, it is the number of those that have ended.
//
// A login that is being completed may become a session after the call: it is no other than
// one that begins after the call.
func (s Sites) EndUser(ctx context.Context, subject string) (n int, err error) {
	for _, k := range s {
		targets := k.Site.LogoutTargets("", subject)
		for _, t := range targets {
			ended, err := k.endTarget(ctx, t, targets, EndRevoked)
			if n += ended; err != nil {
				return n, revokeError(ctx, err)
			}
		}
	}
	return n, nil
}

// EndOlderThan ends the sessions whose login is at least age ago, and returns their number.
// With age 0 it ends all. It ends no session whose label does not open. Sessions that an
// earlier release has written are found after their next write. After an error, which is
// that of EndByID, it returns the number of those that have ended.
func (s Sites) EndOlderThan(ctx context.Context, age time.Duration) (n int, err error) {
	before := time.Now().Add(-age)
	err = s.each(ctx, func(page []Listed) error {
		old := map[*Keeper][]session.ID{}
		for _, l := range page {
			if l.Keeper != nil && (age == 0 || !l.Label.Created.After(before)) {
				old[l.Keeper] = append(old[l.Keeper], l.ID)
			}
		}
		for k, ids := range old {
			ended, err := k.endAll(ctx, ids, EndRevoked)
			if n += ended; err != nil {
				return err
			}
		}
		return nil
	})
	return n, revokeError(ctx, err)
}

func revokeError(ctx context.Context, err error) error {
	var u *UnavailableError
	switch {
	case err == nil, errors.As(err, &u):
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return unavailable(fmt.Errorf("ending sessions: %w", err))
}
