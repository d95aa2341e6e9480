package redis

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/redis/rueidis"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// errReplicas reports a write that is on the master, and on fewer replicas than
// Config.Replicas. It may be lost with the master.
var errReplicas = errors.New("written, but not by enough replicas")

// definitive has the errors that a retry does not change.
var definitive = []error{session.ErrNotFound, session.ErrConflict, session.ErrLeased, errMalformed, errReplicas}

// transientCodes are the error codes of a server that is starting, failing over or
// moving slots, or that is not a master. With each of them, the server has not run the
// command.
var transientCodes = []string{"LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "READONLY", "BUSY", "MOVED", "ASK"}

// isTransient reports whether a retry may succeed: the connection failed, the server is
// not ready, or another call failed while this one waited for its connection or answer.
func isTransient(err error) bool {
	if refusal, ok := rueidis.IsRedisErr(err); ok {
		// Redis 6 puts text before the code of an error in a script.
		text := refusal.Error()
		return slices.ContainsFunc(transientCodes, func(code string) bool { return strings.Contains(text, code+" ") })
	}
	return !slices.ContainsFunc(definitive, func(a error) bool { return errors.Is(err, a) })
}

// isFull reports whether the server has reached its maxmemory.
func isFull(err error) bool {
	refusal, ok := rueidis.IsRedisErr(err)
	return ok && strings.Contains(refusal.Error(), "OOM ")
}

// callError returns the errors of the contract unchanged, and wraps all others with
// the name of the operation.
func callError(doing string, err error) error {
	if errors.Is(err, session.ErrNotFound) || errors.Is(err, session.ErrConflict) || errors.Is(err, session.ErrLeased) {
		return err
	}
	return fmt.Errorf("%s: %w", doing, explain(err))
}

// explain adds the remedy to errors that an operator can fix.
func explain(err error) error {
	if errors.Is(err, rueidis.ErrDoCacheAborted) {
		return fmt.Errorf("%w (may the user run CLIENT CACHING, MULTI, PTTL, GET and EXEC? See the ACL in docs/redis.md)", err)
	}
	text := err.Error()
	switch {
	case strings.Contains(text, "NOPERM"), strings.Contains(text, "can't run this command"), strings.Contains(text, "can't access"):
		return fmt.Errorf("%w (the user needs more rights: see the ACL in docs/redis.md)", err)
	case strings.Contains(text, "OOM "):
		return fmt.Errorf("%w (the server is full: raise its maxmemory; keep maxmemory-policy noeviction, as an evicted session is logged out)", err)
	}
	return err
}
