package fakeas

import (
	"crypto"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Options are the fixed parts of a server.
type Options struct {
	// URL is the server's address for clients, without a trailing slash, and
	// the issuer. Start sets it. With Transport, any URL works.
	URL string
	// Clients are the first registered clients. AddClient registers more.
	Clients []Client
}

// Server is a fake authorization server. It is an http.Handler.
type Server struct {
	// URL is the base of all endpoints. It must not change after the first
	// request.
	URL string

	closing   chan struct{}
	closeOnce sync.Once
	control   http.Handler

	mu      sync.Mutex
	knobs   Knobs
	clients map[string]Client
	users   map[string]User
	faults  []*Fault
	keys    keyring
	ledger  ledger
	log     requestLog
	nonces  nonces
	// assertionKeys has the keys of clients by client ID and kid, and assertions the
	// jti of all assertions that were accepted.
	assertionKeys map[string]map[string]crypto.PublicKey
	assertions    map[string]bool
}

// New returns a server with DefaultKnobs.
func New(opts Options) *Server {
	s := &Server{
		URL:     opts.URL,
		closing: make(chan struct{}),
		knobs:   DefaultKnobs(),
		clients: map[string]Client{},
		users:   map[string]User{},
		ledger:  newLedger(),

		assertionKeys: map[string]map[string]crypto.PublicKey{},
		assertions:    map[string]bool{},
	}
	s.control = s.controlHandler()
	for _, c := range opts.Clients {
		s.AddClient(c)
	}
	return s
}

// Close ends all delays and opens all gates, so that running handlers return.
func (s *Server) Close() { s.closeOnce.Do(func() { close(s.closing) }) }

// Endpoint names an endpoint in faults, statistics and the log.
type Endpoint string

// The endpoints.
const (
	EndpointDiscovery  Endpoint = "discovery"
	EndpointJWKS       Endpoint = "jwks"
	EndpointAuthorize  Endpoint = "authorize"
	EndpointToken      Endpoint = "token"
	EndpointUserInfo   Endpoint = "userinfo"
	EndpointRevoke     Endpoint = "revoke"
	EndpointEndSession Endpoint = "end_session"
	EndpointUnknown    Endpoint = "unknown"
)

// call is one request to an endpoint.
type call struct {
	r     *http.Request
	knobs Knobs
	form  url.Values // the query and the body, or the body alone
	entry *Entry
	// forcedError is the error code that a fault demands, or "".
	forcedError string
}

// maxBody bounds request bodies. Legitimate requests are far smaller.
const maxBody = 1 << 20

// ServeHTTP serves the endpoints, and below /ctl/ the control interface:
//
//	GET, POST    /ctl/knobs   the knobs; posted members replace
//	POST, DELETE /ctl/faults  add one fault or an array; remove all
//	POST         /ctl/clients, /ctl/users, /ctl/revoke {"token"}
//	POST         /ctl/keys    {"action": "rotate"|"replace"|"retire"}
//	POST         /ctl/logout  {"client_id","sub","sid","edit"}: send a logout token
//	GET          /ctl/stats, /ctl/tokens, /ctl/secrets
//	GET, DELETE  /ctl/log     the request log
//	GET          /ctl/valid?token=…
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/ctl/") {
		s.control.ServeHTTP(w, r)
		return
	}
	endpoint, serve := s.route(r.URL.Path)
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	parseErr := r.ParseForm()
	c := &call{r: r, knobs: s.Knobs(), form: r.Form, entry: newEntry(endpoint, r)}
	recordAnswer := s.countRequest(c)
	fault := s.takeFault(endpoint, r.PostForm.Get("grant_type"))
	var a answer
	switch {
	case parseErr != nil:
		a = refuse(http.StatusBadRequest, "invalid_request", "unreadable form").answer()
	case fault == nil:
		a = serve(c)
	default:
		a = s.spoil(c, fault, serve)
	}
	if c.knobs.ClockOffset != 0 {
		a.header.Set("Date", time.Now().Add(c.knobs.ClockOffset).UTC().Format(http.TimeFormat))
	}
	// The server records the answer before it sends it: a test with the answer
	// finds it in the statistics.
	recordAnswer(a)
	s.send(w, a)
}

// route returns the endpoint at a path.
func (s *Server) route(path string) (Endpoint, func(*call) answer) {
	base := ""
	if u, err := url.Parse(s.URL); err == nil {
		base = u.Path
	}
	if path == wellKnownOAuth+base {
		return EndpointDiscovery, s.discoveryOAuth
	}
	path, ok := strings.CutPrefix(path, base)
	if !ok {
		return EndpointUnknown, notFound
	}
	switch path {
	case wellKnownOpenID:
		return EndpointDiscovery, s.discoveryOpenID
	case "/jwks":
		return EndpointJWKS, s.jwks
	case "/authorize":
		return EndpointAuthorize, s.authorize
	case "/token":
		return EndpointToken, s.token
	case "/userinfo":
		return EndpointUserInfo, s.userInfo
	case "/revoke":
		return EndpointRevoke, s.revoke
	case "/end_session":
		return EndpointEndSession, s.endSession
	case "/logout":
		return EndpointEndSession, s.cognitoLogout
	}
	return EndpointUnknown, notFound
}

func notFound(*call) answer { return page(http.StatusNotFound, "not found") }

// sleep waits for d or until the server closes. It ignores the request's
// context, since a real server continues after the client has disconnected.
func (s *Server) sleep(d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.closing:
	}
}
