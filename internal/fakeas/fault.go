package fakeas

import (
	"bytes"
	"compress/gzip"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// The grants in Fault.Grant, Stats and the log.
const (
	GrantCode    = "authorization_code"
	GrantRefresh = "refresh_token"
)

// Delivery is how an answer's body leaves the server.
type Delivery string

// The values of Fault.Delivery; the zero value sends the answer as usual.
const (
	DeliverReset   Delivery = "reset"   // no answer, the connection is reset
	DeliverEOF     Delivery = "eof"     // no answer, the connection is closed
	DeliverCut     Delivery = "cut"     // half the body, then the connection is closed
	DeliverEndless Delivery = "endless" // the body, then spaces without end
	DeliverDrip    Delivery = "drip"    // one byte each Interval
)

// Fault spoils answers. It says when (Endpoint, Grant, Times), whether the
// endpoint still does its work (AfterCommit), and what the client gets
// instead of, or made of, the true answer.
type Fault struct {
	// Endpoint is token if empty.
	Endpoint Endpoint `json:"endpoint"`
	// Grant limits a fault of the token endpoint to one grant_type.
	Grant string `json:"grant"`
	// Times is how many answers are spoiled: 0 means 1, -1 all that follow.
	Times int `json:"times"`
	// AfterCommit lets the endpoint do its work first: tokens are issued and
	// refresh tokens rotated, whatever the client is told. Without it the
	// request changes nothing.
	AfterCommit bool `json:"after_commit"`
	// Delay passes before anything is sent.
	Delay time.Duration `json:"delay"`
	// Gate, if set, holds the answer until it is opened, after Delay.
	Gate *Gate `json:"-"`

	// Error is an OAuth error code: JSON with Status (default 400), or from
	// the authorization endpoint an error callback.
	Error string `json:"error"`
	// Status and Header replace those of the answer. Without AfterCommit the
	// default status is 200.
	Status int               `json:"status"`
	Header map[string]string `json:"header"`
	// Body replaces the body; nil keeps it. Prefix and Suffix are put around.
	Body   *string `json:"body"`
	Prefix string  `json:"prefix"`
	Suffix string  `json:"suffix"`
	// Gzip compresses the body, whatever the client accepts.
	Gzip bool `json:"gzip"`

	Delivery Delivery      `json:"delivery"`
	Interval time.Duration `json:"interval"`
}

// For limits the fault to one grant.
func (f Fault) For(grant string) Fault { f.Grant = grant; return f }

// At moves the fault to another endpoint.
func (f Fault) At(e Endpoint) Fault { f.Endpoint = e; return f }

// Repeat spoils the next n answers, or with -1 all of them.
func (f Fault) Repeat(n int) Fault { f.Times = n; return f }

// Committed lets the endpoint do its work before the answer is spoiled.
func (f Fault) Committed() Fault { f.AfterCommit = true; return f }

// Answer is a fault with a fixed answer, for a request that changed nothing.
func Answer(status int, contentType, body string) Fault {
	return Fault{Status: status, Header: map[string]string{"Content-Type": contentType}, Body: &body}
}

// Unavailable answers 503 with an HTML page.
func Unavailable() Fault {
	return Answer(http.StatusServiceUnavailable, "text/html", "<html><body><h1>503 Service Unavailable</h1></body></html>")
}

// TooManyRequests answers 429 with Retry-After.
func TooManyRequests(after time.Duration) Fault {
	f := Answer(http.StatusTooManyRequests, "text/plain", "slow down")
	f.Header["Retry-After"] = strconv.Itoa(int(after / time.Second))
	return f
}

// OAuthError answers an error code, with status 400 from JSON endpoints.
func OAuthError(code string) Fault { return Fault{Error: code} }

// LoseRequest resets the connection before anything happens.
func LoseRequest() Fault { return Fault{Delivery: DeliverReset} }

// LoseAnswer does the work, then resets the connection.
func LoseAnswer() Fault { return Fault{AfterCommit: true, Delivery: DeliverReset} }

// BOM puts a byte order mark in front of the true answer.
func BOM() Fault { return Fault{AfterCommit: true, Prefix: "\ufeff"} }

// Slow delays the true answer; the work is done before the delay.
func Slow(d time.Duration) Fault { return Fault{AfterCommit: true, Delay: d} }

// Hold does the work at once and keeps the true answer back until the gate is
// opened.
func Hold(g *Gate) Fault { return Fault{AfterCommit: true, Gate: g} }

// Fail appends faults. A request takes the first that fits it.
func (s *Server) Fail(faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range faults {
		if f.Endpoint == "" {
			f.Endpoint = EndpointToken
		}
		if f.Times == 0 {
			f.Times = 1
		}
		f.Header = maps.Clone(f.Header)
		s.faults = append(s.faults, &f)
	}
}

// ClearFaults removes all faults.
func (s *Server) ClearFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// takeFault uses up one time of the first fault that fits.
func (s *Server) takeFault(e Endpoint, grant string) *Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.faults, func(f *Fault) bool {
		return f.Endpoint == e && (f.Grant == "" || f.Grant == grant)
	})
	if i < 0 {
		return nil
	}
	taken := *s.faults[i]
	if taken.Times > 0 {
		s.faults[i].Times--
		if s.faults[i].Times == 0 {
			s.faults = slices.Delete(s.faults, i, i+1)
		}
	}
	return &taken
}

// spoil makes the answer of a request that a fault fell on.
func (s *Server) spoil(c *call, f *Fault, serve func(*call) answer) answer {
	c.entry.Spoiled = true
	a := answer{status: http.StatusOK, header: http.Header{}}
	switch {
	case f.Error != "" && f.Endpoint == EndpointAuthorize:
		c.forced = f.Error
		a = serve(c)
	case f.AfterCommit:
		a = serve(c)
	}
	if f.Error != "" && f.Endpoint != EndpointAuthorize {
		a = refuse(http.StatusBadRequest, f.Error, "as ordered").answer()
	}
	s.sleep(f.Delay)
	s.hold(f.Gate)
	if f.Status != 0 {
		a.status = f.Status
	}
	if f.Body != nil {
		a.body = []byte(*f.Body)
	}
	a.body = slices.Concat([]byte(f.Prefix), a.body, []byte(f.Suffix))
	if f.Gzip {
		a.body = compressed(a.body)
		a.header.Set("Content-Encoding", "gzip")
	}
	for name, value := range f.Header {
		a.header.Set(name, value)
	}
	if f.Delivery != "" {
		a.delivery = f
	}
	return a
}

func compressed(b []byte) []byte {
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	_, _ = z.Write(b) // a bytes.Buffer takes everything
	_ = z.Close()
	return buf.Bytes()
}

// send writes the answer the way the fault wants it delivered.
func (s *Server) send(w http.ResponseWriter, a answer) {
	how := Fault{}
	if a.delivery != nil {
		how = *a.delivery
	}
	switch how.Delivery {
	case DeliverReset:
		reset(w)
	case DeliverEOF:
		panic(http.ErrAbortHandler)
	}
	maps.Copy(w.Header(), a.header)
	if how.Delivery == DeliverCut {
		w.Header().Set("Content-Length", strconv.Itoa(len(a.body)))
	}
	w.WriteHeader(a.status)
	switch how.Delivery {
	case DeliverCut:
		_, _ = w.Write(a.body[:len(a.body)/2])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	case DeliverEndless:
		s.drip(w, a.body, 0)
	case DeliverDrip:
		s.drip(w, a.body, how.Interval)
	default:
		_, _ = w.Write(a.body) // a client that has gone is no fault of ours
	}
}

// drip sends the body byte by byte; without an interval, at once and followed
// by spaces until the client or the server has had enough.
func (s *Server) drip(w http.ResponseWriter, body []byte, interval time.Duration) {
	flush := http.NewResponseController(w).Flush
	if interval > 0 {
		for i := range body {
			s.sleep(interval)
			if _, err := w.Write(body[i : i+1]); err != nil || flush() != nil {
				return
			}
		}
		return
	}
	if _, err := w.Write(body); err != nil {
		return
	}
	spaces := bytes.Repeat([]byte(" "), 32<<10)
	for {
		select {
		case <-s.closing:
			return
		default:
		}
		if _, err := w.Write(spaces); err != nil || flush() != nil {
			return
		}
	}
}

// reset makes the client see a reset connection. It does not return.
func reset(w http.ResponseWriter) {
	if m, ok := w.(*memoryWriter); ok {
		m.abort(&net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET})
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // HTTP/2: the stream is reset instead
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // closing then sends RST; without it, FIN: lost either way
	}
	_ = conn.Close()
	panic(http.ErrAbortHandler)
}
