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

// LoginAttempt identifies one login of a browser.
type LoginAttempt struct {
	// Cookie is the value of the sealed login cookie. Code is the authorization code
	// that the server sent to the browser. Both together encrypt the result of the
	// login, and only the browser has both: an attacker who plants the cookie of an
	// attempt of his own in the browser lacks the code.
	Cookie, Code string
	// End is when the login cookie expires.
	End time.Time
}

// Redemption is the result of redeeming an authorization code.
type Redemption struct {
	// Secret is the secret of the new session.
	Secret seal.Secret
	// Spent, with an error, means that the server may have accepted the code. The
	// claim then stays, so that no instance sends the code again.
	Spent bool
}

const (
	// loginWait bounds how long a repeated callback waits for the first one. It is
	// longer than a redemption takes at a server that answers in time.
	loginWait = 20 * time.Second
	// The pause between two reads of another instance's claim doubles from
	// claimPollFirst to claimPollMax.
	claimPollFirst = 50 * time.Millisecond
	claimPollMax   = 500 * time.Millisecond
	// loginClaimSlack allows for different clocks of two instances: a claim must
	// outlive its attempt at all of them.
	loginClaimSlack = time.Minute
)

// RedeemLogin calls redeem for a login attempt, and returns the secret of the new session.
// Over all instances on the store it calls redeem once at a time, and never again once
// the server may have accepted the code. Simultaneous and later calls with the same
// cookie and code return the same secret, or ErrLoginOver if there is none. Calls with
// the same cookie and another code return ErrLoginOver. own reports whether this call is
// the one that called redeem.
//
// RedeemLogin first writes a claim to the store; if the store takes no writes, it does
// not call redeem. It deletes the claim after an error of redeem, unless the code may be
// spent. Otherwise the claim stays until the attempt ends.
//
// The error is the error of redeem, which simultaneous calls in this process share,
// ErrLoginOver, an *UnavailableError if nothing was redeemed, or the error of ctx. redeem
// runs with ctx: the caller detaches ctx from the request.
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
		run.until = time.Time{} // the store failed before redeem was called
	}
	return secret, own, err
}

// loginClaim is the right to redeem one attempt, and later its result. It is an item under
// an ID that belongs to no session. While the code is being redeemed, its value is the
// holder. After success it is the sealed secret of the session. It is empty if the code
// may be spent and there is no session.
type loginClaim struct {
	ref     seal.Ref // its secret encrypts the result
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

// redeemClaimed calls redeem if this call gets the claim, and otherwise waits for the
// result of the claim's holder.
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

// takeClaim writes the claim and reports whether this call has it. After an error the claim
// may have been written, so takeClaim deletes it in the background.
func (k *Keeper) takeClaim(ctx context.Context, c loginClaim) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	err := k.Vault.store.Create(ctx, c.ref.ID, session.Item{Version: claimTaken, Expires: c.expires, Value: c.holder[:]})
	k.Vault.probes.recordWrite(err)
	switch {
	case errors.Is(err, session.ErrConflict):
		// The claim may be this call's own: the store may have repeated a write whose
		// answer was lost.
		claim, err := k.readClaim(ctx, c.ref.ID)
		return bytes.Equal(claim.Value, c.holder[:]), notMissing(err)
	case err != nil:
		k.Vault.background(func() { k.deleteOwnClaim(c) })
		return false, err
	}
	return true, nil
}

// settleClaim replaces the claim by the result of the redemption. If the store takes no
// write now, the claim stays as it is and no call redeems the attempt again: a repeated
// callback begins a new login.
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

// deleteOwnClaim deletes a claim that this process may have written.
func (k *Keeper) deleteOwnClaim(c loginClaim) {
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	if claim, err := k.readClaim(ctx, c.ref.ID); err == nil && bytes.Equal(claim.Value, c.holder[:]) {
		_ = k.Vault.store.Delete(ctx, c.ref.ID)
	}
}

// awaitClaim waits for the result of another holder. If the claim is deleted, its
// redemption failed. If it does not change, its process has crashed, perhaps after it sent
// the code. The error is ErrLoginOver in both cases.
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

// openResult decrypts the secret in a settled claim.
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

// readClaim reads the current claim, past every copy.
func (k *Keeper) readClaim(ctx context.Context, id session.ID) (claim session.Item, err error) {
	err = k.Vault.viewCurrent(ctx, id, func(item session.Item) error {
		claim = session.Item{Version: item.Version, Value: bytes.Clone(item.Value)}
		return nil
	})
	return claim, err
}

// notMissing returns err, or nil if it says that there is no item.
func notMissing(err error) error {
	if errors.Is(err, session.ErrNotFound) {
		return nil
	}
	return err
}
