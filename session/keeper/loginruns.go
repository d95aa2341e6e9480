package keeper

import (
	"context"
	"sync"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

const (
	// maxLoginsRunning bounds how many attempts one process redeems, or waits for,
	// at a time.
	maxLoginsRunning = 1024
	// maxLoginsKept bounds how many finished attempts it remembers besides.
	maxLoginsKept = 4096
	// maxLoginsSpent bounds how many claims of failed attempts it leaves in the
	// store at a time: a server that answers no request must not let anonymous
	// callbacks fill the store.
	maxLoginsSpent = 1024
	// loginKept is how long the result of a login stays in memory. After that the
	// store has it.
	loginResultAge = time.Minute
)

// loginRuns are the attempts that this process redeems, and those it finished
// lately, so that repeated callbacks cost the authorization server nothing.
type loginRuns struct {
	mu      sync.Mutex
	all     map[session.ID]*loginRun
	running int
	// spent are the ends of the claims of failed attempts that were left in the
	// store, oldest first.
	spent []time.Time
}

// loginRun is one attempt. Outcome and until are set before done is closed.
type loginRun struct {
	key     seal.Secret // of the claim
	done    chan struct{}
	outcome loginOutcome
	until   time.Time // how long it is remembered; zero: not at all
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

// begin returns the run of an attempt, and whether the caller has to carry it
// out. A run that has failed before is over.
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

// makeRoom forgets any finished run if there are too many.
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

// end finishes a run, whose outcome has been set.
func (l *loginRuns) end(id session.ID, run *loginRun) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running--
	if run.until.IsZero() {
		delete(l.all, id)
	}
	close(run.done)
}

// wait returns the outcome of a run that another call carries out, to those who
// have its code.
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

// keepSpent reports whether the claim of a failed attempt may stay in the store
// until its end.
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
