package keeper

import (
	"context"
	"slices"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// noticeRetention is how long the browser of an ended session can learn the reason.
const noticeRetention = time.Hour

// reasonsWithNotice are the ends that surprise a user: neither the user nor the
// authorization server wanted them.
var reasonsWithNotice = []EndReason{EndRevoked, EndSessionLimit}

// noticeID returns the ID of the notice about the end of a session. It is the ID of no
// session, because no secret leads to it.
func (k *Keeper) noticeID(id session.ID) session.ID {
	return k.Site.Digest("oauth_session end notice v1", id[:])
}

// leaveNotice writes the reason for which a session is about to end, for TakeEndNotice. A
// failure does not matter: the session must end all the same.
func (k *Keeper) leaveNotice(ctx context.Context, id session.ID, reason EndReason) {
	if !slices.Contains(reasonsWithNotice, reason) {
		return
	}
	notice := k.noticeID(id)
	sealed, err := k.Site.SealLabel(notice, []byte(reason))
	if err != nil {
		return
	}
	_ = k.Vault.store.Create(ctx, notice, session.Item{Version: 1, Expires: time.Now().Add(noticeRetention), Value: sealed})
}

// TakeEndNotice returns the reason for which a session has ended, if its user has to be
// informed of it: EndRevoked or EndSessionLimit. Otherwise, and if the store fails, it
// returns "". It removes the notice, so that only one call gets the reason.
func (k *Keeper) TakeEndNotice(ctx context.Context, secret seal.Secret) EndReason {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	notice := k.noticeID(k.Site.Ref(secret).ID)
	var reason EndReason
	err := k.Vault.viewCurrent(ctx, notice, func(item session.Item) error {
		plain, err := k.Site.OpenLabel(notice, item.Value)
		reason = EndReason(plain)
		return err
	})
	if err != nil || !slices.Contains(reasonsWithNotice, reason) {
		return ""
	}
	if k.Vault.store.Delete(ctx, notice) != nil {
		return "" // otherwise the browser would get the same answer again and again
	}
	return reason
}
