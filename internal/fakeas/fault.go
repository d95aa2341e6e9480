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

// Delivery is the way in which the server sends an answer.
type Delivery string

// The values of Fault.Delivery; the zero value sends the answer as usual.
const (
	DeliverReset   Delivery = "reset"   // no answer, the connection is reset
	DeliverEOF     Delivery = "eof"     // no answer, the connection is closed
	DeliverCut     Delivery = "cut"     // half the body, then the connection is closed
	DeliverEndless Delivery = "endless" // the body, then endless spaces
	DeliverDrip    Delivery = "drip"    // one byte per Interval
)

// Fault spoils answers. Endpoint, Grant and Times select the requests.
// AfterCommit decides whether the endpoint does its work. The other fields
// change the answer or its delivery.
type Fault struct {
	// Endpoint is token if empty.
	Endpoint Endpoint `json:"endpoint"`
	// Grant limits a fault of the token endpoint to one grant_type.
	Grant string `json:"grant"`
	// Times is the number of spoiled answers: 0 means 1, -1 all that follow.
	Times int `json:"times"`
	// AfterCommit lets the endpoint do its work first: it issues tokens and
	// rotates refresh tokens, and only the answer is spoiled. Without it, the
	// request changes nothing.
	AfterCommit bool `json:"after_commit"`
	// Delay is the time before the answer is sent.
	Delay time.Duration `json:"delay"`
	// Gate, if set, holds the answer back after Delay until the gate opens.
	Gate *Gate `json:"-"`

	// Error is an OAuth error code: JSON with Status (default 400), or from
	// the authorization endpoint an error callback.
	Error string `json:"error"`
	// Status and Header replace those of the answer. Without AfterCommit the
	// default status is 200.
	Status int               `json:"status"`
	Header map[string]string `json:"header"`
	// Body replaces the body; nil keeps it. Prefix and Suffix surround it.
	Body   *string `json:"body"`
	Prefix string  `json:"prefix"`
	Suffix string  `json:"suffix"`
	// Gzip compresses the body and ignores the client's Accept-Encoding.
	Gzip bool `json:"gzip"`

	Delivery Delivery      `json:"delivery"`
	Interval time.Duration `json:"interval"`
}

// For limits the fault to one grant.
func (f Fault) For(grant string) Fault { f.Grant = grant; return f }

// At moves the fault to another endpoint.
func (f Fault) At(e Endpoint) Fault { f.Endpoint = e; return f }

// Repeat spoils the next n answers, or all of them if n is -1.
func (f Fault) Repeat(n int) Fault { f.Times = n; return f }

// Committed lets the endpoint do its work before the fault spoils the answer.
func (f Fault) Committed() Fault { f.AfterCommit = true; return f }

// Answer sends a fixed answer. The request changes nothing.
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

// OAuthError answers with an error code. JSON endpoints use status 400.
func OAuthError(code string) Fault { return Fault{Error: code} }

// LoseRequest resets the connection. The request changes nothing.
func LoseRequest() Fault { return Fault{Delivery: DeliverReset} }

// LoseAnswer lets the endpoint do its work, then resets the connection.
func LoseAnswer() Fault { return Fault{AfterCommit: true, Delivery: DeliverReset} }

// BOM puts a byte order mark before the correct answer.
func BOM() Fault { return Fault{AfterCommit: true, Prefix: "\ufeff"} }

// Slow delays the correct answer. The endpoint does its work before the delay.
func Slow(d time.Duration) Fault { return Fault{AfterCommit: true, Delay: d} }

// Hold lets the endpoint do its work at once and holds the correct answer back
// until the gate opens.
func Hold(g *Gate) Fault { return Fault{AfterCommit: true, Gate: g} }

// Fail appends faults. Each request takes the first matching fault.
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

// takeFault returns the first matching fault and counts its Times down.
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

// forcedReason is the error_description of an error that a fault demands.
const forcedReason = "as ordered"

// spoil returns the answer of a request with a fault.
func (s *Server) spoil(c *call, f *Fault, serve func(*call) answer) answer {
	c.entry.Spoiled = true
	a := answer{status: http.StatusOK, header: http.Header{}}
	switch {
	case f.Error != "" && f.Endpoint == EndpointAuthorize:
		c.forcedError = f.Error
		a = serve(c)
	case f.AfterCommit:
		a = serve(c)
	}
	if f.Error != "" && f.Endpoint != EndpointAuthorize {
		a = refuse(http.StatusBadRequest, f.Error, forcedReason).answer()
	}
	s.sleep(f.Delay)
	s.awaitGate(f.Gate)
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
	_, _ = z.Write(b) // writing to a bytes.Buffer never fails
	_ = z.Close()
	return buf.Bytes()
}

// send writes the answer, with the delivery of its fault if it has one.
func (s *Server) send(w http.ResponseWriter, a answer) {
	fault := Fault{}
	if a.delivery != nil {
		fault = *a.delivery
	}
	switch fault.Delivery {
	case DeliverReset:
		reset(w)
	case DeliverEOF:
		panic(http.ErrAbortHandler)
	}
	maps.Copy(w.Header(), a.header)
	if fault.Delivery == DeliverCut {
		w.Header().Set("Content-Length", strconv.Itoa(len(a.body)))
	}
	w.WriteHeader(a.status)
	switch fault.Delivery {
	case DeliverCut:
		_, _ = w.Write(a.body[:len(a.body)/2])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	case DeliverEndless:
		s.sendEndless(w, a.body)
	case DeliverDrip:
		s.drip(w, a.body, fault.Interval)
	default:
		_, _ = w.Write(a.body) // fails only if the client has disconnected
	}
}

// drip sends the body byte by byte, with the interval before each byte.
func (s *Server) drip(w http.ResponseWriter, body []byte, interval time.Duration) {
	flush := http.NewResponseController(w).Flush
	for i := range body {
		s.sleep(interval)
		if _, err := w.Write(body[i : i+1]); err != nil || flush() != nil {
			return
		}
	}
}

// sendEndless sends the body, then spaces until the client disconnects or the
// server closes.
func (s *Server) sendEndless(w http.ResponseWriter, body []byte) {
	flush := http.NewResponseController(w).Flush
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

// reset resets the connection. It does not return.
func reset(w http.ResponseWriter) {
	if m, ok := w.(*memoryWriter); ok {
		m.abort(&net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET})
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // HTTP/2: the stream is reset instead
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // Close then sends RST; on failure it sends FIN, and the answer is lost, too
	}
	_ = conn.Close()
	panic(http.ErrAbortHandler)
}
