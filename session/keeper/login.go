package keeper

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// LoginAttempt is one login, as the browser's login cookie shows it.
type LoginAttempt struct {
	// Cookie is the value of the sealed login cookie, and Code what the
	// authorization server sent the browser back with. Only the browser has both,
	// so that nobody else can open what is kept of the result: whoever began the
	// attempt and planted its cookie in another's browser lacks the code.
	Cookie, Code string
	// End is when the cookie is not accepted any more.
	End time.Time
}

// Redemption is what came of an attempt's code.
type Redemption struct {
	// Secret is that of the new session.
	Secret seal.Secret
	// Spent, beside an error: the server took the code, or may have taken it. The
	// claim then stays, so that no instance sends the code again.
	Spent bool
}

const (
	// loginWait bounds how long a repeated callback waits for the first one. It is
	// longer than a redemption takes at a server that answers in time.
	loginWait = 20 * time.Second
	// loginLookFirst and loginLookMax space the looks at a claim of another
	// instance.
	claimPollFirst = 50 * time.Millisecond
	claimPollMax   = 500 * time.Millisecond
	// loginClaimSlack is what the clocks of two instances may differ by. A claim
	// must outlive its attempt at all of them.
	loginClaimSlack = time.Minute
)

// RedeemLogin calls redeem for a login cookie, at one instance at a time and never
// again once the code may have been used, and returns the secret of the session that came of it. Later and simultaneous
// calls with the same code return the same secret, or ErrLoginOver if there is
// none; with another code it is always ErrLoginOver. Own reports whether this
// call is the one that redeemed.
//
// Before redeem is called a claim is written to the store: a store that takes no
// writes lets no code be sent. A claim is deleted when redeem fails, unless the
// code may be spent, and else kept until the attempt ends. Beside an error of
// redeem, which simultaneous calls in this process share, the error is
// ErrLoginOver, an *UnavailableError if nothing was redeemed, or that of ctx.
// Redeem runs under ctx: the caller detaches it from the request.
func (k *Keeper) RedeemLogin(ctx context.Context, a LoginAttempt, redeem func(context.Context) (Redemption, error)) (secret seal.Secret, own bool, err error) {
	claim := k.loginClaim(a)
	run, own, err := k.Vault.logins.begin(claim)
	if err != nil {
		return seal.Secret{}, false, err
	}
	if !own {
		secret, err = run.wait(ctx, claim)
		return secret, false, err
	}
	run.outcome.err, run.until = ErrLoginOver, claim.expires // if redeem panics
	defer func() { k.Vault.logins.end(claim.ref.ID, run) }()
	secret, own, err = k.redeemClaimed(ctx, claim, redeem)
	run.outcome = loginOutcome{secret: secret, err: err}
	switch {
	case err == nil:
		run.until = time.Now().Add(loginResultAge)
	case !own && isUnavailable(err):
		run.until = time.Time{} // the store hindered it, so nothing was redeemed
	}
	return secret, own, err
}

// loginClaim is the right to redeem one attempt, and afterwards its result: an
// item that is no session, under an ID to which no session's secret leads. Its
// value is the holder while the code is being redeemed, the sealed secret of the
// session after success, and empty if the code may be spent without a session.
type loginClaim struct {
	ref     seal.Ref // the secret seals the result
	holder  session.Holder
	expires time.Time
}

// Versions of a claim.
const (
	claimTaken   = 1
	claimSettled = 2
)

func (k *Keeper) loginClaim(a LoginAttempt) loginClaim {
	return loginClaim{
		ref: seal.Ref{
			ID:     k.Site.Digest("oauth_session login claim v1", []byte(a.Cookie)),
			Secret: k.Site.Digest("oauth_session login result v1", []byte(a.Cookie), []byte(a.Code)),
		},
		holder: newHolder(), expires: a.End.Add(loginClaimSlack),
	}
}

// redeemClaimed redeems if the claim is this call's, and else waits for the one
// that has it.
func (k *Keeper) redeemClaimed(ctx context.Context, c loginClaim, redeem func(context.Context) (Redemption, error)) (seal.Secret, bool, error) {
	taken, err := k.takeClaim(ctx, c)
	switch {
	case err != nil:
		return seal.Secret{}, false, loginUnavailable(err)
	case !taken:
		secret, err := k.awaitClaim(ctx, c)
		return secret, false, err
	}
	r, err := redeem(ctx)
	k.settleClaim(ctx, c, r, err)
	if err != nil {
		return seal.Secret{}, true, err
	}
	return r.Secret, true, nil
}

func isUnavailable(err error) bool {
	_, ok := errors.AsType[*UnavailableError](err)
	return ok
}

func loginUnavailable(err error) error {
	return unavailable(fmt.Errorf("claiming login: %w", err))
}

// takeClaim reports whether this call may redeem. After an error nothing is
// known, so what may have been written is removed.
func (k *Keeper) takeClaim(ctx context.Context, c loginClaim) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	err := k.Vault.store.Create(ctx, c.ref.ID, session.Item{Version: claimTaken, Expires: c.expires, Value: c.holder[:]})
	k.Vault.probes.recordWrite(err)
	switch {
	case errors.Is(err, session.ErrConflict):
		// It may be this call's own, written by a try whose answer was lost.
		claim, err := k.readClaim(ctx, c.ref.ID)
		return bytes.Equal(claim.Value, c.holder[:]), notMissing(err)
	case err != nil:
		k.Vault.background(func() { k.deleteOwnClaim(c) })
		return false, err
	}
	return true, nil
}

// settleClaim replaces the claim by what came of it. If the store takes no write
// now the claim stays as it is, and nobody redeems the attempt again: repeated
// callbacks begin a new login then.
func (k *Keeper) settleClaim(ctx context.Context, c loginClaim, r Redemption, failure error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	item := session.Item{Version: claimSettled, Expires: c.expires}
	switch {
	case failure == nil:
		var err error
		if item.Value, err = k.Site.Seal(c.ref, nil, claimSettled, r.Secret[:], nil); err != nil {
			return
		}
	case !r.Spent || !k.Vault.logins.reserveSpent(c.expires):
		_ = k.Vault.store.Delete(ctx, c.ref.ID)
		return
	}
	_ = k.Vault.store.Replace(ctx, c.ref.ID, item)
}

// dropClaim deletes a claim that this process may have written.
func (k *Keeper) deleteOwnClaim(c loginClaim) {
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	if claim, err := k.readClaim(ctx, c.ref.ID); err == nil && bytes.Equal(claim.Value, c.holder[:]) {
		_ = k.Vault.store.Delete(ctx, c.ref.ID)
	}
}

// awaitClaim waits for the result of another holder. A claim that is gone was of
// a redemption that failed, and one that does not change of a process that
// crashed: nobody knows whether that sent the code.
func (k *Keeper) awaitClaim(ctx context.Context, c loginClaim) (seal.Secret, error) {
	ctx, cancel := context.WithTimeout(ctx, loginWait)
	defer cancel()
	for pause := claimPollFirst; ; pause = min(2*pause, claimPollMax) {
		claim, err := k.readClaim(ctx, c.ref.ID)
		switch {
		case errors.Is(err, session.ErrNotFound), errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil:
			return seal.Secret{}, ErrLoginOver
		case err != nil:
			return seal.Secret{}, loginUnavailable(err)
		case len(claim.Value) != len(c.holder):
			return k.openResult(c, claim)
		case !sleep(ctx, pause):
			return seal.Secret{}, ErrLoginOver
		}
	}
}

// openResult reads the secret out of a settled claim.
func (k *Keeper) openResult(c loginClaim, item session.Item) (secret seal.Secret, err error) {
	sealed, err := k.Site.Open(c.ref, item)
	if err != nil {
		return seal.Secret{}, ErrLoginOver
	}
	plain, err := sealed.Hot()
	_, coldErr := sealed.Cold() // empty
	if err != nil || coldErr != nil || len(plain) != len(secret) {
		return seal.Secret{}, ErrLoginOver
	}
	return seal.Secret(plain), nil
}

// readClaim reads a claim past all copies.
func (k *Keeper) readClaim(ctx context.Context, id session.ID) (claim session.Item, err error) {
	err = k.Vault.viewCurrent(ctx, id, func(item session.Item) error {
		claim = session.Item{Version: item.Version, Value: bytes.Clone(item.Value)}
		return nil
	})
	return claim, err
}

// notMissing is an error of the store, unless the item is merely not there.
func notMissing(err error) error {
	if errors.Is(err, session.ErrNotFound) {
		return nil
	}
	return err
}
