package echo

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strconv"
	"strings"
)

// Request is one request as it arrived on the wire.
type Request struct {
	// Line is the request line.
	Line string `json:"line"`
	// Headers and Trailers hold the name and value of each field line, in the
	// order and case of the wire.
	Headers  [][2]string `json:"headers"`
	Trailers [][2]string `json:"trailers,omitempty"`
	// BodySHA256 is the hexadecimal digest of the decoded body.
	BodySHA256 string `json:"body_sha256"`
	BodyLength int64  `json:"body_length"`
	// Malformed is the reason for refusing the request, or "".
	Malformed string `json:"malformed,omitempty"`
	// Conn is the number of the connection, from 1.
	Conn int `json:"conn"`
}

// Values returns the values of all header lines with the name, in any case.
func (r Request) Values(name string) []string {
	var values []string
	for _, h := range r.Headers {
		if strings.EqualFold(h[0], name) {
			values = append(values, h[1])
		}
	}
	return values
}

// Bearer returns the bearer token, or "" unless the request has exactly one
// Authorization line, with a bearer token.
func (r Request) Bearer() string {
	values := r.Values("Authorization")
	if len(values) != 1 {
		return ""
	}
	token, _ := strings.CutPrefix(values[0], "Bearer ")
	if token == values[0] {
		return ""
	}
	return token
}

// withoutAuthorization returns the request with the value of each Authorization
// line replaced.
func (r Request) withoutAuthorization() Request {
	r.Headers = slices.Clone(r.Headers)
	for i, h := range r.Headers {
		if strings.EqualFold(h[0], "Authorization") {
			r.Headers[i][1] = "(hidden)"
		}
	}
	return r
}

// target returns the path and the query of the request line.
func (r Request) target() (path, query string) {
	parts := strings.Split(r.Line, " ")
	if len(parts) < 2 {
		return "", ""
	}
	path, query, _ = strings.Cut(parts[1], "?")
	return path, query
}

func (r Request) method() string {
	method, _, _ := strings.Cut(r.Line, " ")
	return method
}

// closes reports whether the client ends the connection after this request.
func (r Request) closes() bool {
	return strings.HasSuffix(r.Line, "HTTP/1.0") || strings.EqualFold(strings.Join(r.Values("Connection"), ","), "close")
}

// maxHead bounds the request line and the header section together, and each
// trailer section.
const maxHead = 1 << 20

// errMalformed is wrapped by errors of the request. Errors of the connection do
// not wrap it.
var errMalformed = errors.New("malformed request")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errMalformed, fmt.Sprintf(format, args...))
}

// reader reads requests from one connection.
type reader struct {
	*bufio.Reader
	// left is the number of bytes that the current head may still have.
	left int
}

// line reads one line without its CRLF.
func (r *reader) line() (string, error) {
	var b strings.Builder
	for {
		part, err := r.ReadSlice('\n')
		if r.left -= len(part); r.left < 0 {
			return "", malformed("too long")
		}
		b.Write(part)
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil {
			return "", err
		}
		text, ok := strings.CutSuffix(b.String(), "\r\n")
		if !ok || strings.ContainsAny(text, "\r\x00") {
			return "", malformed("bad line end or control character")
		}
		return text, nil
	}
}

// fields reads header or trailer lines up to the empty one.
func (r *reader) fields() ([][2]string, error) {
	fields := [][2]string{}
	for {
		line, err := r.line()
		if err != nil || line == "" {
			return fields, err
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || !isToken(name) {
			return fields, malformed("field line %q", line)
		}
		fields = append(fields, [2]string{name, strings.Trim(value, " \t")})
	}
}

// isToken reports whether s is a token (RFC 9110, section 5.6.2). A folded
// line and a name with a space before the colon are none.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		if !letter && ('0' > c || c > '9') && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) {
			return false
		}
	}
	return s != ""
}

// head reads the request line and the headers.
func (r *reader) head() (Request, error) {
	r.left = maxHead
	var req Request
	var err error
	if req.Line, err = r.line(); err != nil {
		return req, err
	}
	parts := strings.Split(req.Line, " ")
	if len(parts) != 3 || !isToken(parts[0]) || parts[1] == "" || parts[2] != "HTTP/1.1" && parts[2] != "HTTP/1.0" {
		return req, malformed("request line")
	}
	if req.Headers, err = r.fields(); err != nil {
		return req, err
	}
	if len(req.Values("Host")) != 1 {
		return req, malformed("%d Host lines", len(req.Values("Host")))
	}
	return req, nil
}

// body reads the body, its digest and the trailers.
func (r *reader) body(req *Request) error {
	sum := sha256.New()
	err := r.copyBody(req, sum)
	req.BodySHA256 = hex.EncodeToString(sum.Sum(nil))
	return err
}

func (r *reader) copyBody(req *Request, sum hash.Hash) error {
	length, coding := req.Values("Content-Length"), req.Values("Transfer-Encoding")
	switch {
	case len(length)+len(coding) > 1:
		return malformed("two kinds of framing")
	case len(length) == 1:
		n, err := strconv.ParseUint(length[0], 10, 62)
		if err != nil || length[0][0] == '+' {
			return malformed("Content-Length %q", length[0])
		}
		req.BodyLength, err = io.CopyN(sum, r, int64(n))
		return err
	case len(coding) == 0:
		return nil
	case coding[0] != "chunked" || strings.HasSuffix(req.Line, "HTTP/1.0"):
		return malformed("Transfer-Encoding %q", coding[0])
	}
	for {
		n, err := r.chunk(sum)
		req.BodyLength += n
		if err != nil {
			return err
		}
		if n == 0 {
			r.left = maxHead
			req.Trailers, err = r.fields()
			return err
		}
	}
}

// chunk copies one chunk and returns its length, which is 0 for the last one.
func (r *reader) chunk(to io.Writer) (int64, error) {
	r.left = 64
	line, err := r.line()
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(line, 16, 62)
	if err != nil || line[0] == '+' {
		return 0, malformed("chunk size %q", line)
	}
	if n == 0 {
		return 0, nil
	}
	copied, err := io.CopyN(to, r, int64(n))
	if err != nil {
		return copied, err
	}
	if end, err := r.line(); err != nil || end != "" {
		return copied, malformed("chunk is longer than its size")
	}
	return copied, nil
}
