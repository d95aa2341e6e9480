package caddymodule

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/keeper"
)

// shownSession is a session in the answer of the admin endpoint. It contains no token and
// no cookie. The ID ends the session, and opens nothing.
type shownSession struct {
	ID         string     `json:"id"`
	Site       string     `json:"site,omitempty"`
	ClientID   string     `json:"client_id,omitempty"`
	User       string     `json:"user,omitempty"`
	Name       string     `json:"name,omitempty"`
	CreatedAt  *time.Time `json:"created_at,omitempty"`
	LastUsedAt *time.Time `json:"last_used_at,omitempty"`
	UserAgent  string     `json:"user_agent,omitempty"`
	// Label is "missing" or "unreadable" if the other fields are not known.
	Label  string `json:"label,omitempty"`
	Detail string `json:"detail,omitempty"`
}

type sessionPage struct {
	Sessions []shownSession `json:"sessions"`
	// Next is the parameter cursor of the next page. Empty: this page is the last one.
	Next string `json:"next,omitempty"`
}

type sessionCount struct {
	Count      int            `json:"count"`
	Unreadable int            `json:"unreadable,omitempty"`
	Sites      map[string]int `json:"sites,omitempty"`
}

type revocation struct {
	Ended int    `json:"ended"`
	Error string `json:"error,omitempty"`
}

func serveSessions(w http.ResponseWriter, r *http.Request) error {
	var answer any
	status := http.StatusOK
	var err error
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		answer, err = readSessions(r)
	case http.MethodDelete:
		var ended revocation
		if ended, err = revokeSessions(r); ended.Error != "" {
			status = http.StatusServiceUnavailable
		}
		answer = ended
	default:
		w.Header().Set("Allow", "GET, HEAD, DELETE")
		return caddy.APIError{HTTPStatus: http.StatusMethodNotAllowed}
	}
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	return json.NewEncoder(w).Encode(answer)
}

// readSessions answers GET with a page of sessions, or with their number.
func readSessions(r *http.Request) (any, error) {
	q, err := parseSessionQuery(r, "site", "user", "cursor", "limit", "count")
	if err != nil {
		return nil, err
	}
	stores, err := q.stores()
	if err != nil {
		return nil, err
	}
	if q.count {
		return countSessions(r, q, stores)
	}
	page := sessionPage{Sessions: []shownSession{}}
	for i, s := range stores {
		if s.key() < q.cursor.store {
			continue
		}
		after := session.ID{}
		if s.key() == q.cursor.store {
			after = q.cursor.after
		}
		found, next, err := s.list(r, q, after, q.limit-len(page.Sessions))
		if err != nil {
			return nil, s.unavailable(err)
		}
		for _, l := range found {
			if l.Keeper != nil || q.site == "" {
				page.Sessions = append(page.Sessions, s.show(l))
			}
		}
		switch {
		case next != session.ID{}:
			page.Next = sessionCursor{s.key(), next}.String()
			return page, nil
		case len(page.Sessions) >= q.limit && i+1 < len(stores):
			page.Next = sessionCursor{store: stores[i+1].key()}.String()
			return page, nil
		}
	}
	return page, nil
}

func (s *storeSites) list(r *http.Request, q sessionQuery, after session.ID, limit int) ([]keeper.Listed, session.ID, error) {
	if q.user != "" {
		return s.sites.ListUser(r.Context(), q.user, after, limit)
	}
	return s.sites.List(r.Context(), after, limit)
}

func (s *storeSites) show(l keeper.Listed) shownSession {
	shown := shownSession{ID: hex.EncodeToString(l.ID[:]), Site: s.labels[l.Keeper], ClientID: s.clients[l.Keeper]}
	switch {
	case errors.Is(l.Err, keeper.ErrNoLabel):
		shown.Label, shown.Detail = "missing", l.Err.Error()
	case l.Err != nil:
		shown.Label, shown.Detail = "unreadable", l.Err.Error()
	default:
		created, used := l.Label.Created.UTC().Truncate(time.Second), l.Label.LastUsed.UTC().Truncate(time.Second)
		shown.User, shown.Name, shown.UserAgent = l.Label.Subject, l.Label.Name, l.Label.UserAgent
		shown.CreatedAt, shown.LastUsedAt = &created, &used
	}
	return shown
}

func countSessions(r *http.Request, q sessionQuery, stores []*storeSites) (sessionCount, error) {
	total := sessionCount{Sites: map[string]int{}}
	for _, s := range stores {
		var counts keeper.Counts
		var err error
		if q.user != "" {
			counts, err = s.countUser(r, q.user)
		} else {
			counts, err = s.sites.Count(r.Context())
		}
		if err != nil {
			return total, s.unavailable(err)
		}
		for k, n := range counts.BySite {
			total.Sites[s.labels[k]] += n
			total.Count += n
		}
		if q.site == "" {
			total.Count += counts.Unreadable
			total.Unreadable += counts.Unreadable
		}
	}
	return total, nil
}

func (s *storeSites) countUser(r *http.Request, user string) (keeper.Counts, error) {
	counts := keeper.Counts{BySite: map[*keeper.Keeper]int{}}
	found, _, err := s.sites.ListUser(r.Context(), user, session.ID{}, len(s.sites)*session.MaxTagged)
	for _, l := range found {
		counts.BySite[l.Keeper]++
	}
	return counts, err
}

// revokeSessions answers DELETE. After an error of a store, the answer has the number of
// sessions that have ended all the same.
func revokeSessions(r *http.Request) (answer revocation, err error) {
	q, err := parseSessionQuery(r, "site", "id", "user", "older_than")
	if err != nil {
		return answer, err
	}
	stores, err := q.stores()
	if err != nil {
		return answer, err
	}
	var failed []string
	for _, s := range stores {
		n, err := s.revoke(r, q)
		if answer.Ended += n; err != nil {
			failed = append(failed, s.unavailable(err).Error())
		}
	}
	answer.Error = strings.Join(failed, "; ")
	if q.id != nil && answer.Ended == 0 && answer.Error == "" {
		return answer, caddy.APIError{HTTPStatus: http.StatusNotFound, Err: errors.New("no session has this ID")}
	}
	auditRevocation(r, q, answer.Ended)
	return answer, nil
}

func (s *storeSites) revoke(r *http.Request, q sessionQuery) (int, error) {
	switch {
	case q.id != nil:
		found, err := s.sites.EndByID(r.Context(), *q.id)
		if found && err == nil {
			return 1, nil
		}
		return 0, err
	case q.user != "":
		return s.sites.EndUser(r.Context(), q.user)
	}
	return s.sites.EndOlderThan(r.Context(), *q.olderThan)
}

// unavailable returns the error of a store for the operator.
func (s *storeSites) unavailable(err error) error {
	return caddy.APIError{HTTPStatus: http.StatusServiceUnavailable, Err: fmt.Errorf("store %s: %w", s.store, err)}
}

// stores returns the sites that a query selects.
func (q sessionQuery) stores() ([]*storeSites, error) {
	stores := servedSites.stores(q.site)
	if q.site != "" && len(stores) == 0 {
		return nil, caddy.APIError{HTTPStatus: http.StatusNotFound, Err: fmt.Errorf("no site %q: there are %q", q.site, servedSites.labels())}
	}
	slices.SortFunc(stores, func(a, b *storeSites) int { return strings.Compare(a.key(), b.key()) })
	return stores, nil
}
