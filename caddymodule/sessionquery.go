package caddymodule

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// sessionQuery has the parameters of a request for sessions.
type sessionQuery struct {
	site, user string
	id         *session.ID
	olderThan  *time.Duration
	cursor     sessionCursor
	limit      int
	count      bool
}

const (
	defaultSessionPage = 100
	maxSessionPage     = 1000
)

// parseSessionQuery reads the parameters of a request. It refuses unknown, repeated and
// empty ones: a mistake in a script must not end other sessions than intended.
func parseSessionQuery(r *http.Request, allowed ...string) (sessionQuery, error) {
	q := sessionQuery{limit: defaultSessionPage}
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return q, badQuery(errors.New("the query is not valid"))
	}
	for name, given := range values {
		switch {
		case !slices.Contains(allowed, name):
			return q, badQuery(fmt.Errorf("unknown parameter %q: there are %s", name, strings.Join(allowed, ", ")))
		case len(given) > 1:
			return q, badQuery(fmt.Errorf("the parameter %s occurs twice", name))
		case given[0] == "" && name != "count":
			return q, badQuery(fmt.Errorf("the parameter %s is empty", name))
		}
		if err := q.set(name, given[0]); err != nil {
			return q, badQuery(fmt.Errorf("%s %q: %w", name, given[0], err))
		}
	}
	if n := q.selectors(); r.Method == http.MethodDelete && n != 1 {
		return q, badQuery(fmt.Errorf("give one of id, user and older_than, and not %d of them; older_than=0s ends all sessions", n))
	}
	return q, nil
}

func (q *sessionQuery) set(name, value string) (err error) {
	switch name {
	case "site":
		q.site = value
	case "user":
		q.user = value
	case "id":
		q.id, err = parseSessionID(value)
	case "older_than":
		q.olderThan, err = parseAge(value)
	case "cursor":
		q.cursor, err = parseSessionCursor(value)
	case "limit":
		q.limit, err = strconv.Atoi(value)
		if err != nil || q.limit < 1 || q.limit > maxSessionPage {
			return fmt.Errorf("give a number from 1 to %d", maxSessionPage)
		}
	case "count":
		if q.count = value == "" || value == "true" || value == "1"; !q.count {
			return errors.New("give true, or leave it out")
		}
	}
	return err
}

// selectors returns the number of parameters that select the sessions to end.
func (q *sessionQuery) selectors() (n int) {
	for _, given := range []bool{q.id != nil, q.user != "", q.olderThan != nil} {
		if given {
			n++
		}
	}
	return n
}

// selector returns the name of the parameter that selects the sessions, for the log.
func (q *sessionQuery) selector() string {
	switch {
	case q.id != nil:
		return "id"
	case q.user != "":
		return "user"
	}
	return "older_than " + q.olderThan.String()
}

func badQuery(err error) error {
	return caddy.APIError{HTTPStatus: http.StatusBadRequest, Err: err}
}

// parseSessionID reads an ID as lists show it. Logs show its first 12 digits.
func parseSessionID(text string) (*session.ID, error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(session.ID{}) {
		return nil, errors.New("give the ID of a session as lists show it: 64 hexadecimal digits")
	}
	id := session.ID(b)
	return &id, nil
}

// parseAge reads a duration such as 720h or 30d.
func parseAge(text string) (*time.Duration, error) {
	age, err := caddy.ParseDuration(text)
	if err != nil || age < 0 {
		return nil, errors.New("give a duration such as 720h or 30d")
	}
	return &age, nil
}

// sessionCursor is a place in the list of the sessions of all stores.
type sessionCursor struct {
	store string // see storeSites.key
	after session.ID
}

func (c sessionCursor) String() string { return c.store + "-" + hex.EncodeToString(c.after[:]) }

func parseSessionCursor(text string) (c sessionCursor, err error) {
	store, after, _ := strings.Cut(text, "-")
	id, err := parseSessionID(after)
	if err != nil || len(store) != storeKeySize {
		return c, errors.New("give the cursor of the page before")
	}
	return sessionCursor{store, *id}, nil
}

const storeKeySize = 16

// key names the store in a cursor. Cursors order stores by it.
func (s *storeSites) key() string {
	sum := sha256.Sum256([]byte(s.store))
	return hex.EncodeToString(sum[:])[:storeKeySize]
}
