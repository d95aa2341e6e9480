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

// Stats counts what an oidc-provider has seen since its start.
type Stats struct {
	Requests map[string]int // by method and path, for instance "POST /token"

	// Grants counts the token requests by grant_type: the redemptions that succeeded and the refusals. Requests that a fault
	// answered are not in it.
	Grants map[string]struct{ OK, Errors int }

	// RepeatedRefreshTokens counts the token requests with a refresh token that had been presented before, whatever became
	// of them. It stays 0 as long as every rotation is redeemed exactly once.
	RepeatedRefreshTokens int

	ReuseDetected      int      // of these, the ones that made the server revoke the family
	GrantErrors        []string // with the true reason, which the answers hide
	BackchannelLogouts int      // sent and accepted
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

// A Fault makes an oidc-provider misbehave. Hold comes first and combines with any of the others.
type Fault struct {
	Path      string `json:"path"`                // default: /token
	GrantType string `json:"grantType,omitempty"` // only token requests of this type
	Times     int    `json:"times"`               // how many requests; default: 1

	// After lets the server do its work first, so that a refresh token has been rotated when the fault strikes.
	After bool `json:"after,omitempty"`

	Hold bool `json:"hold,omitempty"` // wait until Release
	Drop bool `json:"drop,omitempty"` // close the connection without an answer

	Status  int               `json:"status,omitempty"` // answer this instead
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

// Release lets all held requests go on.
func (p *OIDCProvider) Release(t testing.TB) {
	t.Helper()
	p.call(t, http.MethodPost, "/release", nil, nil)
}

// SetAccessTokenLifetime changes the life of the tokens issued from now on. Whole seconds only.
func (p *OIDCProvider) SetAccessTokenLifetime(t testing.TB, d time.Duration) {
	t.Helper()
	p.call(t, http.MethodPatch, "/settings", map[string]any{"accessTokenTTL": int(d.Seconds())}, nil)
}

// DisableAccounts makes refreshes of these users fail with invalid_grant, and of no others.
func (p *OIDCProvider) DisableAccounts(t testing.TB, users ...string) {
	t.Helper()
	p.call(t, http.MethodPatch, "/settings", map[string]any{"disabledAccounts": append([]string{}, users...)}, nil)
}

// Down refuses connections as a stopped server does, until Up. Sessions and tokens are kept.
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
		t.Fatalf("controlling oidc-provider: %v", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("controlling oidc-provider: %s %s: %s %v", method, path, text, err)
	}
	if answer != nil {
		if err := json.Unmarshal(text, answer); err != nil {
			t.Fatalf("reading the control answer of oidc-provider: %v", err)
		}
	}
}
