package fakeas

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// TestFaultSpoilsAnswer also shows that only a fault with AfterCommit spends the
// refresh token.
func TestFaultSpoilsAnswer(t *testing.T) {
	empty := ""
	tests := []struct {
		name      string
		fault     Fault
		status    int
		header    string // "name: value"
		body      string // part of the body
		committed bool
	}{
		{"503 HTML", Unavailable(), 503, "Content-Type: text/html", "<h1>", false},
		{"429", TooManyRequests(7 * time.Second), 429, "Retry-After: 7", "", false},
		{"302", Fault{Status: 302, Header: map[string]string{"Location": "https://evil.test/"}}, 302, "Location: https://evil.test/", "", false},
		{"200 with error", Fault{Error: "bad_refresh_token", Status: 200}, 200, "Content-Type: application/json", `"error":"bad_refresh_token"`, false},
		{"OAuth error", OAuthError("temporarily_unavailable"), 400, "", `"error":"temporarily_unavailable"`, false},
		{"empty 200", Answer(200, "application/json", ""), 200, "", "", false},
		{"HTML 200", Answer(200, "text/html", "<html>"), 200, "Content-Type: text/html", "<html>", false},
		{"committed 500", Answer(500, "text/plain", "oops").Committed(), 500, "", "oops", true},
		{"BOM", BOM(), 200, "Content-Type: application/json", "\ufeff{", true},
		{"trailing garbage", Fault{AfterCommit: true, Suffix: "}"}, 200, "", "}}", true},
		{"text/plain", Fault{AfterCommit: true, Header: map[string]string{"Content-Type": "text/plain"}}, 200, "Content-Type: text/plain", "access_token", true},
		{"201", Fault{AfterCommit: true, Status: 201}, 201, "", "access_token", true},
		{"committed, empty", Fault{AfterCommit: true, Body: &empty}, 200, "", "", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := newRig(t)
			token := g.login("scope", "api").text("refresh_token")
			g.as.Fail(tt.fault.For(GrantRefresh))
			r := g.refresh(token)
			if r.err != nil || r.status != tt.status || !strings.Contains(r.body, tt.body) || tt.body == "" && r.status == 200 && r.body != "" {
				t.Errorf("got status %d, body %q and error %v, want %d and a body with %q", r.status, r.body, r.err, tt.status, tt.body)
			}
			if name, value, _ := strings.Cut(tt.header, ": "); r.header.Get(name) != value {
				t.Errorf("got %s %q, want %q", name, r.header.Get(name), value)
			}
			if got := g.as.Stats().Redeemed[token] == 1; got != tt.committed {
				t.Errorf("got committed %t, want %t", got, tt.committed)
			}
			if log := g.as.Log(EndpointToken); !log[1].Spoiled || log[0].Spoiled {
				t.Errorf("got Spoiled %t for the login and %t for the refresh, want false and true", log[0].Spoiled, log[1].Spoiled)
			}
			if again := g.refresh(token); (again.status == 200) == tt.committed {
				t.Errorf("next refresh with the same token: got status %d, want success: %t", again.status, !tt.committed)
			}
		})
	}
}

func TestFaultMatchesEndpointGrantAndTimes(t *testing.T) {
	g := newRig(t)
	g.as.Fail(Unavailable().For(GrantRefresh).Repeat(2), Unavailable().At(EndpointJWKS).Repeat(-1))
	token := g.login("scope", "api").text("refresh_token") // the fault is for another grant
	for _, want := range []int{503, 503, 200} {
		if r := g.refresh(token); r.status != want {
			t.Errorf("refresh: got status %d, want %d", r.status, want)
		}
	}
	for range 5 {
		if r := g.get("/jwks"); r.status != 503 {
			t.Errorf("JWKS: got status %d, want 503", r.status)
		}
	}
	g.as.ClearFaults()
	if r := g.get("/jwks"); r.status != 200 {
		t.Errorf("JWKS after ClearFaults: got status %d, want 200", r.status)
	}
}

// TestTransportBreaksConnectionsLikeTCP compares Transport with a real socket.
func TestTransportBreaksConnectionsLikeTCP(t *testing.T) {
	tests := []struct {
		name      string
		fault     Fault
		want      error
		committed bool
	}{
		{"reset before the commit", LoseRequest(), syscall.ECONNRESET, false},
		{"reset after the commit", LoseAnswer(), syscall.ECONNRESET, true},
		{"EOF before the commit", Fault{Delivery: DeliverEOF}, io.EOF, false},
		{"end within the body", Fault{AfterCommit: true, Delivery: DeliverCut}, io.ErrUnexpectedEOF, true},
	}
	for name, start := range map[string]func(*testing.T) *rig{
		"socket": newSocketRig, "memory": func(t *testing.T) *rig { return newRig(t) },
	} {
		for _, tt := range tests {
			t.Run(name+"/"+tt.name, func(t *testing.T) {
				g := start(t)
				token := g.login("scope", "api").text("refresh_token")
				g.as.Fail(tt.fault)
				if r := g.refresh(token); !errors.Is(r.err, tt.want) {
					t.Errorf("got error %v (status %d, body %q), want %v", r.err, r.status, r.body, tt.want)
				}
				st := g.as.Stats()
				if got := st.Redeemed[token] == 1; got != tt.committed || st.Grants[GrantRefresh] != 1 {
					t.Errorf("got committed %t after %d requests, want %t after 1", got, st.Grants[GrantRefresh], tt.committed)
				}
			})
		}
	}
}

func TestGzipFaultCompressesTheBody(t *testing.T) {
	g := newRig(t)
	g.as.Fail(Fault{Endpoint: EndpointJWKS, AfterCommit: true, Gzip: true})
	r := g.get("/jwks")
	z, err := gzip.NewReader(strings.NewReader(r.body))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(z)
	if err != nil || !bytes.Contains(plain, []byte(`"keys"`)) || r.header.Get("Content-Encoding") != "gzip" {
		t.Errorf("got %q, error %v and header %v, want a compressed JWKS", plain, err, r.header)
	}
}

func TestEndlessBodyExceedsEveryLimit(t *testing.T) {
	for name, g := range map[string]*rig{"socket": newSocketRig(t), "memory": newRig(t)} {
		g.as.Fail(Fault{Endpoint: EndpointJWKS, AfterCommit: true, Delivery: DeliverEndless})
		if r := g.get("/jwks"); r.err != nil || len(r.body) != 4<<20 { // the rig's limit
			t.Errorf("%s: got %d bytes and error %v, want %d bytes", name, len(r.body), r.err, 4<<20)
		}
	}
}

func TestDripAndDelayTakeTheirTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		g.as.Fail(Fault{Delivery: DeliverDrip, Interval: 5 * time.Second, Prefix: "abc", Endpoint: EndpointUserInfo})
		start := time.Now()
		if r := g.get("/userinfo"); r.body != "abc" || time.Since(start) != 15*time.Second {
			t.Errorf("drip: got %q after %v, want abc after 15s", r.body, time.Since(start))
		}
		g.as.Fail(Slow(time.Minute).At(EndpointDiscovery))
		start = time.Now()
		if r := g.get(wellKnownOpenID); r.status != 200 || time.Since(start) != time.Minute {
			t.Errorf("delay: got status %d after %v, want 200 after 1m", r.status, time.Since(start))
		}
	})
}

// TestServerCommitsAfterClientTimeout also shows that no goroutine remains: the
// bubble would not end.
func TestServerCommitsAfterClientTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		token := g.login("scope", "api").text("refresh_token")
		g.as.Set(func(k *Knobs) { k.LatencyBefore = 10 * time.Second })
		g.http.Timeout = time.Second
		start := time.Now()
		var timeout interface{ Timeout() bool }
		if r := g.refresh(token); !errors.As(r.err, &timeout) || !timeout.Timeout() || time.Since(start) != time.Second {
			t.Errorf("got error %v after %v, want a timeout after 1s", r.err, time.Since(start))
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := g.as.Stats().Redeemed[token]; n != 1 {
			t.Errorf("got %d redemptions, want 1", n)
		}
	})
}

func TestClientMayTimeOutWithinABody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		g.as.Fail(Fault{Endpoint: EndpointJWKS, AfterCommit: true, Delivery: DeliverDrip, Interval: time.Second})
		g.http.Timeout = 5 * time.Second
		if r := g.get("/jwks"); r.err == nil || len(r.body) < 3 {
			t.Errorf("got %d bytes and error %v, want some bytes and a timeout", len(r.body), r.err)
		}
	})
}

func TestHeadHasNoBody(t *testing.T) {
	g := newRig(t)
	if r := g.do(http.NewRequest(http.MethodHead, g.as.URL+"/jwks", nil)); r.status != 200 || r.body != "" {
		t.Errorf("got %d %q, want 200 and no body", r.status, r.body)
	}
}

func TestEditsChangeTheAnswerOfTheirGrant(t *testing.T) {
	g := newRig(t, func(k *Knobs) {
		k.LoginAnswer = Edit{Set: map[string]any{"expires_in": "3600", "id_token": nil}, Omit: []string{"token_type"}}
		k.Mutate = func(grant string, m map[string]any) { m["grant"] = grant }
	})
	r := g.login()
	_, hasType := r.json["token_type"]
	if id, hasID := r.json["id_token"]; r.json["expires_in"] != "3600" || !hasID || id != nil || hasType || r.json["grant"] != GrantCode {
		t.Errorf("login answer: got %s", r.body)
	}
	if r := g.wantRefreshed(r.text("refresh_token")); r.json["expires_in"] != 300.0 || r.json["grant"] != GrantRefresh {
		t.Errorf("refresh answer: got %s", r.body)
	}
}

func TestGateHoldsAnswerAfterCommit(t *testing.T) {
	g := newRig(t)
	token := g.login("scope", "api").text("refresh_token")
	gate := NewGate()
	g.as.Fail(Hold(gate).For(GrantRefresh))
	answered := make(chan result, 1)
	go func() { answered <- g.refresh(token) }()
	<-gate.Arrived()
	if n := g.as.Stats().Redeemed[token]; n != 1 {
		t.Errorf("before the gate opened: got %d redemptions, want 1", n)
	}
	select {
	case r := <-answered:
		t.Errorf("before the gate opened: got an answer with status %d, want none", r.status)
	default:
	}
	gate.Open()
	gate.Open()
	if r := <-answered; r.status != 200 {
		t.Errorf("after the gate opened: got status %d, want 200", r.status)
	}
}

func TestCloseOpensGates(t *testing.T) {
	g := newRig(t)
	gate := NewGate()
	g.as.Fail(Hold(gate).At(EndpointJWKS))
	answered := make(chan result, 1)
	go func() { answered <- g.get("/jwks") }()
	<-gate.Arrived()
	g.as.Close()
	<-answered
}
