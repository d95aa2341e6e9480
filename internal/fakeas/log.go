package fakeas

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"time"
)

// maxLog bounds the request log. The oldest entries are dropped first.
const maxLog = 20_000

// Entry is one request in the log.
type Entry struct {
	Time     time.Time   `json:"time"`
	Endpoint Endpoint    `json:"endpoint"`
	Method   string      `json:"method"`
	URI      string      `json:"uri"`
	Host     string      `json:"host"`
	Header   http.Header `json:"header"`
	// Query and Form are the parameters of the URL and of the body.
	Query url.Values `json:"query"`
	Form  url.Values `json:"form"`
	// ClientID is set once the client has authenticated. AuthMethod is the
	// method that it tried.
	ClientID   string `json:"client_id"`
	AuthMethod string `json:"auth_method"`
	// Status, Error and Reason are the server's own decision. If Spoiled is set,
	// a fault may have sent another answer.
	Status  int    `json:"status"`
	Error   string `json:"error"`
	Reason  string `json:"reason"`
	Spoiled bool   `json:"spoiled"`
}

// newEntry needs the parsed form of r.
func newEntry(e Endpoint, r *http.Request) *Entry {
	return &Entry{
		Time: time.Now(), Endpoint: e, Method: r.Method, URI: r.URL.RequestURI(), Host: r.Host,
		Header: r.Header.Clone(), Query: r.URL.Query(), Form: maps.Clone(r.PostForm),
	}
}

// requestLog is a ring buffer. Callers hold Server.mu.
type requestLog struct {
	entries []Entry
	next    int // index of the oldest entry once the buffer is full
}

func (l *requestLog) add(e Entry) {
	if len(l.entries) < maxLog {
		l.entries = append(l.entries, e)
		return
	}
	l.entries[l.next] = e
	l.next = (l.next + 1) % maxLog
}

// Log returns the answered requests to the given endpoints, or to all endpoints
// if none is given, oldest first.
func (s *Server) Log(endpoints ...Endpoint) []Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := &s.log
	all := slices.Concat(l.entries[l.next:], l.entries[:l.next])
	if len(endpoints) == 0 {
		return all
	}
	return slices.DeleteFunc(all, func(e Entry) bool { return !slices.Contains(endpoints, e.Endpoint) })
}

// ClearLog empties the request log. Counts and tokens stay.
func (s *Server) ClearLog() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.log = requestLog{}
}
