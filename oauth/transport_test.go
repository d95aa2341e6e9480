package oauth

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestReadBody: an answer is as long as it is, not as its header says, and room is
// made for what has arrived.
func TestReadBody(t *testing.T) {
	for _, tc := range []struct {
		name      string
		length    int
		says      int64
		err       error
		allocates int // at most
	}{
		{"as it says", 3000, 3000, nil, 8 << 10},
		{"does not say", 3000, -1, nil, 16 << 10},
		{"says less", 3000, 1, nil, 16 << 10},
		{"says as much as there may be", 1, maxBody, nil, 32 << 10},
		{"says more than there may be", 1, 1 << 62, nil, 32 << 10},
		{"says nothing of too much", maxBody + 1, -1, errTooLarge, 0},
		{"as much as there may be", maxBody, maxBody, nil, 4 * maxBody},
	} {
		resp := &http.Response{ContentLength: tc.says, Body: io.NopCloser(strings.NewReader(strings.Repeat("x", tc.length)))}
		body, err := readBody(resp)
		if !errors.Is(err, tc.err) || err == nil && len(body) != tc.length {
			t.Errorf("%s: %d bytes, %v", tc.name, len(body), err)
		}
		if cap(body) > tc.allocates {
			t.Errorf("%s: room for %d bytes", tc.name, cap(body))
		}
	}
}
