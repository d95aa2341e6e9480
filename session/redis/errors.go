package redis

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/redis/rueidis"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// errReplicas: the write is on the master, and may be lost with it.
var errReplicas = errors.New("written, but not by enough replicas")

// answers are errors that no repetition changes.
var answers = []error{session.ErrNotFound, session.ErrConflict, session.ErrLeased, errMalformed, errReplicas}

// passingCodes are refusals of a server that is starting, failing over, or
// moving slots, and of one that is no master (any more). All of them say that
// nothing was done.
var passingCodes = []string{"LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "READONLY", "BUSY", "MOVED", "ASK"}

// passing reports whether trying again may help: the connection failed, or a
// call of somebody else that this one was waiting for, or the server asks for
// patience.
func passing(err error) bool {
	if refusal, ok := rueidis.IsRedisErr(err); ok {
		// Anywhere in the text: Redis 6 puts words before what a script met.
		text := refusal.Error()
		return slices.ContainsFunc(passingCodes, func(code string) bool { return strings.Contains(text, code+" ") })
	}
	return !slices.ContainsFunc(answers, func(a error) bool { return errors.Is(err, a) })
}

// answer returns what a caller can tell apart as it is, and everything else
// with what was being done.
func answer(doing string, err error) error {
	if errors.Is(err, session.ErrNotFound) || errors.Is(err, session.ErrConflict) || errors.Is(err, session.ErrLeased) {
		return err
	}
	return fmt.Errorf("%s: %w", doing, explain(err))
}

// explain adds what the operator can do.
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
