package keeper

import (
	"context"
	"sync"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

const (
	// maxLoginsRunning bounds the attempts that one process redeems, or waits for, at a
	// time.
	maxLoginsRunning = 1024
	// maxLoginsKept bounds the finished attempts that it remembers in addition.
	maxLoginsKept = 4096
	// maxLoginsSpent bounds the claims of failed attempts that one process leaves in
	// the store at a time: anonymous callbacks must not fill the store while the
	// authorization server does not answer.
	maxLoginsSpent = 1024
	// loginResultAge is how long the result of a login stays in memory. The store has
	// it until the attempt ends.
	loginResultAge = time.Minute
)

// loginRuns holds the attempts that this process redeems, and those it has finished
// recently: repeated callbacks cause no request to the authorization server.
type loginRuns struct {
	mu      sync.Mutex
	all     map[session.ID]*loginRun
	running int
	// spent has the ends of the claims that failed attempts left in the store, oldest
	// first.
	spent []time.Time
}

// loginRun is one attempt. outcome and until are set before done is closed.
type loginRun struct {
	key     seal.Secret // secret of the claim's ref
	done    chan struct{}
	outcome loginOutcome
	until   time.Time // end of its time in memory; zero: it is not kept
}

type loginOutcome struct {
	secret seal.Secret
	err    error
}

func (r *loginRun) finished() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// begin returns the run of an attempt, and whether the caller must carry it out. The error
// is ErrLoginOver if the run has failed before, or wraps ErrManyLogins.
func (l *loginRuns) begin(c loginClaim) (run *loginRun, own bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if run := l.all[c.ref.ID]; run != nil {
		switch {
		case !run.finished():
			return run, false, nil
		case time.Now().After(run.until):
			delete(l.all, c.ref.ID)
		case run.outcome.err != nil:
			return nil, false, ErrLoginOver
		default:
			return run, false, nil
		}
	}
	if l.running >= maxLoginsRunning {
		return nil, false, unavailable(ErrManyLogins)
	}
	if l.all == nil {
		l.all = map[session.ID]*loginRun{}
	}
	l.makeRoom()
	run = &loginRun{key: c.ref.Secret, done: make(chan struct{})}
	l.all[c.ref.ID] = run
	l.running++
	return run, true, nil
}

// makeRoom removes one finished run if there are too many.
func (l *loginRuns) makeRoom() {
	if len(l.all)-l.running < maxLoginsKept {
		return
	}
	for id, run := range l.all {
		if run.finished() {
			delete(l.all, id)
			return
		}
	}
}

// end finishes a run after its outcome was set.
func (l *loginRuns) end(id session.ID, run *loginRun) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running--
	if run.until.IsZero() {
		delete(l.all, id)
	}
	close(run.done)
}

// wait waits for the outcome of a run that another call carries out. A caller with another
// code gets ErrLoginOver.
func (r *loginRun) wait(ctx context.Context, c loginClaim) (seal.Secret, error) {
	timer := time.NewTimer(loginWait)
	defer timer.Stop()
	select {
	case <-r.done:
		if r.key != c.ref.Secret {
			return seal.Secret{}, ErrLoginOver
		}
		return r.outcome.secret, r.outcome.err
	case <-timer.C:
		return seal.Secret{}, ErrLoginOver
	case <-ctx.Done():
		return seal.Secret{}, ctx.Err()
	}
}

// reserveSpent reports whether the claim of a failed attempt may stay in the store until
// its end, and counts it if so.
func (l *loginRuns) reserveSpent(end time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.spent) > 0 && time.Now().After(l.spent[0]) {
		l.spent = l.spent[1:]
	}
	if len(l.spent) >= maxLoginsSpent {
		return false
	}
	l.spent = append(l.spent, end)
	return true
}
