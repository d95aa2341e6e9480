package oauth

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestReadBodyDoesNotTrustContentLength: readBody returns the whole body and maxCap
// little more, whatever Content-Length says.
func TestReadBodyDoesNotTrustContentLength(t *testing.T) {
	for _, tc := range []struct {
		name      string
		length    int
		announced int64 // Content-Length
		err       error
		maxCap    int // at most
	}{
		{"announced", 3000, 3000, nil, 8 << 10},
		{"not announced", 3000, -1, nil, 16 << 10},
		{"announced less", 3000, 1, nil, 16 << 10},
		{"announced maximum", 1, maxBody, nil, 32 << 10},
		{"announced more than the maximum", 1, 1 << 62, nil, 32 << 10},
		{"too large, not announced", maxBody + 1, -1, errTooLarge, 0},
		{"maximum", maxBody, maxBody, nil, 4 * maxBody},
	} {
		resp := &http.Response{ContentLength: tc.announced, Body: io.NopCloser(strings.NewReader(strings.Repeat("x", tc.length)))}
		body, err := readBody(resp)
		if !errors.Is(err, tc.err) || err == nil && len(body) != tc.length {
			t.Errorf("%s: got %d bytes, error %v; want %d, %v", tc.name, len(body), err, tc.length, tc.err)
		}
		if cap(body) > tc.maxCap {
			t.Errorf("%s: got capacity %d, want at most %d", tc.name, cap(body), tc.maxCap)
		}
	}
}
