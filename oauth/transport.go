package oauth

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxBody limits every response of the server, in bytes. Compression is off, so
// a small response cannot expand beyond this limit.
const maxBody = 1 << 20

// A fetched document is fresh for the max-age of its Cache-Control, within
// minFresh and maxFresh, or for defaultFresh without one.
const (
	defaultFresh = time.Hour
	minFresh     = 5 * time.Minute
	maxFresh     = 24 * time.Hour
)

var errTooLarge = fmt.Errorf("the response is larger than %d bytes", maxBody)

// maxPrealloc limits the bytes that readBody allocates because a Content-Length
// announces them. Token responses are smaller.
const maxPrealloc = 16 << 10

// readBody reads a whole body, up to maxBody.
func readBody(resp *http.Response) ([]byte, error) {
	var body bytes.Buffer
	if n := resp.ContentLength; n > 0 {
		body.Grow(int(min(n, maxPrealloc)) + bytes.MinRead)
	}
	if _, err := body.ReadFrom(io.LimitReader(resp.Body, maxBody+1)); err != nil {
		return nil, err
	}
	if body.Len() > maxBody {
		return nil, errTooLarge
	}
	return body.Bytes(), nil
}

// statusError is the status of a response that is not 200.
type statusError int

func (e statusError) Error() string {
	if e >= 300 && e < 400 {
		return fmt.Sprintf("HTTP %d: redirects are not followed", int(e))
	}
	return fmt.Sprintf("HTTP %d", int(e))
}

// Is reports true for errNeedsOperator if the server has nothing at the URL for this
// client: a redirect, or a status 4xx that does not ask for patience.
func (e statusError) Is(target error) bool {
	return target == errNeedsOperator && e >= 300 && e < 500 &&
		e != http.StatusRequestTimeout && e != http.StatusTooEarly && e != http.StatusTooManyRequests
}

// fetchDocument gets a public document of the server. It also returns how long
// the document is fresh.
func (c *Client) fetchDocument(ctx context.Context, url string) ([]byte, time.Duration, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, 0, errors.New("the address is not a URL")
	}
	req.Header.Set("Accept", "application/json, application/jwk-set+json")
	sent := time.Now()
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, 0, connError(err)
	}
	defer resp.Body.Close()
	c.noteClock(resp.Header, sent)
	if resp.StatusCode != http.StatusOK {
		return nil, 0, statusError(resp.StatusCode)
	}
	body, err := readBody(resp)
	if errors.Is(err, errTooLarge) {
		return nil, 0, err
	}
	if err != nil {
		return nil, 0, connError(err)
	}
	return body, freshFor(resp.Header), nil
}

// freshFor reads Cache-Control. Its bounds prevent that a server makes the client
// fetch at every call, or keeps old keys in use for long.
func freshFor(h http.Header) time.Duration {
	for _, directive := range strings.Split(strings.Join(h.Values("Cache-Control"), ","), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
		switch strings.ToLower(name) {
		case "no-store", "no-cache":
			return minFresh
		case "max-age":
			seconds, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 31)
			if err != nil {
				return defaultFresh
			}
			return min(max(time.Duration(seconds)*time.Second, minFresh), maxFresh)
		}
	}
	return defaultFresh
}

// connError replaces an error of net/http by one that is safe to show. Some of
// those errors quote the server's bytes (a malformed status line, the debug data
// of a GOAWAY frame), so connError passes on only kinds that do not.
func connError(err error) error {
	for _, plain := range []error{context.DeadlineExceeded, context.Canceled, io.ErrUnexpectedEOF, io.EOF} {
		if errors.Is(err, plain) {
			return fmt.Errorf("no complete response: %w", plain)
		}
	}
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return errors.New(sanitize(e.Error()))
	}
	if e, ok := errors.AsType[*net.OpError](err); ok {
		return errors.New(sanitize(e.Error()))
	}
	if e, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return errors.New(e.Msg)
	}
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		return errors.New("no response in time")
	}
	return errors.New("the connection broke, or the response was not HTTP")
}
