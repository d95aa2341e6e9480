package op

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"
)

// Stats are an oidc-provider's counts since its start.
type Stats struct {
	Requests map[string]int // by method and path, such as "POST /token"

	// Grants counts the granted and refused token requests by grant_type, without requests that a fault answered.
	Grants map[string]struct{ OK, Errors int }

	// RepeatedRefreshTokens counts the token requests with a refresh token of an earlier request, granted or not. It is 0
	// if each refresh token was sent once.
	RepeatedRefreshTokens int

	ReuseDetected      int      // RepeatedRefreshTokens for which the server revoked the family
	GrantErrors        []string // with the internal reason, which answers do not contain
	BackchannelLogouts int      // delivered
	BackchannelErrors  []string
	ServerErrors       []string // exceptions
}

// Stats returns the counts so far.
func (p *OIDCProvider) Stats(t testing.TB) Stats {
	t.Helper()
	var s Stats
	p.call(t, http.MethodGet, "/stats", nil, &s)
	return s
}

// A Fault makes an oidc-provider fail. Hold comes first and combines with the other actions.
type Fault struct {
	Path      string `json:"path"`                // default: /token
	GrantType string `json:"grantType,omitempty"` // limits the fault to token requests with this grant_type
	Times     int    `json:"times"`               // number of requests; default: 1

	// After lets the server do its work first: it has already rotated the refresh token.
	After bool `json:"after,omitempty"`

	Hold bool `json:"hold,omitempty"` // wait until Release
	Drop bool `json:"drop,omitempty"` // close the connection without an answer

	Status  int               `json:"status,omitempty"` // replaces the answer
	Headers map[string]string `json:"headers,omitempty"`
	Body    string            `json:"body,omitempty"`

	Set    map[string]any `json:"set,omitempty"`    // members of the JSON answer to change
	Remove []string       `json:"remove,omitempty"` // members of the JSON answer to remove
}

// Fault adds a fault.
func (p *OIDCProvider) Fault(t testing.TB, f Fault) {
	t.Helper()
	if f.Path == "" {
		f.Path = "/token"
	}
	if f.Times == 0 {
		f.Times = 1
	}
	p.call(t, http.MethodPost, "/faults", f, nil)
}

// ClearFaults removes all faults. Held requests stay held.
func (p *OIDCProvider) ClearFaults(t testing.TB) {
	t.Helper()
	p.call(t, http.MethodDelete, "/faults", nil, nil)
}

// AwaitHeld waits until at least n requests are held.
func (p *OIDCProvider) AwaitHeld(t testing.TB, n int) {
	t.Helper()
	p.call(t, http.MethodGet, fmt.Sprintf("/held?count=%d", n), nil, nil)
}

// Release continues all held requests.
func (p *OIDCProvider) Release(t testing.TB) {
	t.Helper()
	p.call(t, http.MethodPost, "/release", nil, nil)
}

// SetAccessTokenLifetime sets the lifetime of access tokens issued from now on, a whole number of seconds.
func (p *OIDCProvider) SetAccessTokenLifetime(t testing.TB, d time.Duration) {
	t.Helper()
	p.call(t, http.MethodPatch, "/settings", map[string]any{"accessTokenTTL": int(d.Seconds())}, nil)
}

// DisableAccounts lets refreshes of these users, and no others, fail with invalid_grant.
func (p *OIDCProvider) DisableAccounts(t testing.TB, users ...string) {
	t.Helper()
	p.call(t, http.MethodPatch, "/settings", map[string]any{"disabledAccounts": append([]string{}, users...)}, nil)
}

// Down refuses connections until Up, like a stopped server. Sessions and tokens survive.
func (p *OIDCProvider) Down(t testing.TB) {
	t.Helper()
	p.call(t, http.MethodPut, "/listening", map[string]any{"on": false}, nil)
}

// Up ends Down.
func (p *OIDCProvider) Up(t testing.TB) {
	t.Helper()
	p.call(t, http.MethodPut, "/listening", map[string]any{"on": true}, nil)
}

func (p *OIDCProvider) call(t testing.TB, method, path string, body, answer any) {
	t.Helper()
	var content bytes.Buffer
	if body != nil {
		if err := json.NewEncoder(&content).Encode(body); err != nil {
			t.Fatal(err)
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), method, p.control+path, &content)
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Timeout: 3 * time.Minute}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatalf("sending %s %s to oidc-provider's control interface: %v", method, path, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("oidc-provider's control interface: %s %s: got %s %s and error %v, want 200", method, path, resp.Status, text, err)
	}
	if answer != nil {
		if err := json.Unmarshal(text, answer); err != nil {
			t.Fatalf("reading the control answer of oidc-provider: %v", err)
		}
	}
}
