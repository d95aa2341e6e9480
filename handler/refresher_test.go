package handler

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
	"github.com/oauth-session/caddy-oauth-session/oauth"
	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/keeper"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

func TestRefreshErrorsMapToOutcomes(t *testing.T) {
	g := newRig(t, plainOAuth)
	refresher := Refresher{Client: g.handler.Client}
	for want, fault := range map[keeper.Outcome]fakeas.Fault{
		keeper.Rejected:      fakeas.OAuthError("invalid_grant"),
		keeper.Unclear:       fakeas.OAuthError("invalid_request"),
		keeper.Misconfigured: fakeas.OAuthError("invalid_client"),
		keeper.Unavailable:   fakeas.Unavailable(),
		keeper.Unanswered:    fakeas.LoseAnswer(),
		keeper.Malformed:     fakeas.Answer(200, "application/json", "{}"),
		keeper.TimedOut:      fakeas.Answer(504, "text/html", "<html>"),
	} {
		g.as.Fail(fault)
		if got := refresher.Refresh(t.Context(), "RT_x", nil); got.Outcome != want || got.Err == nil || strings.Contains(got.Err.Error(), "RT_x") {
			t.Errorf("got %v, %v, want %v", got.Outcome, got.Err, want)
		}
	}
	if len(outcomes) != 7 {
		t.Errorf("got %d kinds, want 7", len(outcomes))
	}
	for kind := oauth.Rejected; kind <= oauth.TimedOut; kind++ {
		if _, ok := outcomes[kind]; !ok {
			t.Errorf("kind %v: got no outcome, which would pass for a success", kind)
		}
	}
}

// TestIdentityAfterARefreshIsVerified: it has the claims and the sid of the new ID
// token. Only a token that belongs to another login is ErrIdentityChanged.
func TestIdentityAfterARefreshIsVerified(t *testing.T) {
	g := newRig(t)
	g.loggedIn()
	refresher := Refresher{Client: g.handler.Client}
	refreshToken, sid := g.as.newest(fakeas.KindRefresh), g.sid()
	g.as.SetUser(fakeas.User{Name: "alice", Claims: map[string]any{"email": "new@example.test"}})
	answer := refresher.Refresh(t.Context(), refreshToken, nil)
	if answer.Outcome != keeper.Refreshed || answer.Tokens.IDToken == "" {
		t.Fatalf("got answer %+v, want new tokens", answer)
	}
	current := keeper.Identity{Subject: "alice", SID: "old", Claims: json.RawMessage(`{"email":"old","team":"blue"}`)}
	who, err := refresher.Identify(t.Context(), current, answer.Tokens)
	if err != nil || who.Subject != "alice" || who.SID != sid {
		t.Fatalf("got identity %+v, error %v, want that of the new ID token", who, err)
	}
	if email, _ := findClaim(who.Claims, "email"); string(email) != `"new@example.test"` {
		t.Errorf("got email %s, want the new one", email)
	}
	if team, ok := findClaim(who.Claims, "team"); ok {
		t.Errorf("got team %s, want none: the new ID token has none", team)
	}
	for _, unreadable := range []string{"[]", "null", "{", `"x"`} {
		kept := current
		kept.Claims = json.RawMessage(unreadable)
		if who, err := refresher.Identify(t.Context(), kept, answer.Tokens); err == nil || errors.Is(err, keeper.ErrIdentityChanged) || who.SID != "old" {
			t.Errorf("stored claims %s: got %+v, %v, want an error", unreadable, who, err)
		}
		kept.Subject = "mallory"
		if _, err := refresher.Identify(t.Context(), kept, answer.Tokens); !errors.Is(err, keeper.ErrIdentityChanged) {
			t.Errorf("stored claims %s and another subject: got %v, want ErrIdentityChanged", unreadable, err)
		}
	}
	current.Subject = "mallory"
	if _, err := refresher.Identify(t.Context(), current, answer.Tokens); !errors.Is(err, keeper.ErrIdentityChanged) {
		t.Errorf("another subject: got %v, want ErrIdentityChanged", err)
	}
	answer.Tokens.IDToken = "not.a-jwt"
	if _, err := refresher.Identify(t.Context(), current, answer.Tokens); err == nil || errors.Is(err, keeper.ErrIdentityChanged) {
		t.Errorf("garbage: got %v, want another error", err)
	}
}

func TestObserverLogsEachCauseOnceAMinute(t *testing.T) {
	log := &logBuffer{}
	observe := NewObserver(zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), log, zap.DebugLevel)))
	for kind := keeper.EventRefreshed; kind <= keeper.EventDiscarded; kind++ {
		for outcome := keeper.Refreshed; outcome <= keeper.Malformed; outcome++ {
			for range 100 {
				observe(keeper.Event{Kind: kind, Outcome: outcome, Reason: keeper.EndIdle, Err: errors.New("cause")})
			}
		}
	}
	for word, level := range map[string]string{
		`"outcome":"rejected"`: "info", `"outcome":"misconfigured"`: "error", `"outcome":"malformed"`: "error", `"outcome":"unavailable"`: "warn", `"outcome":"unanswered"`: "warn",
		"could not be written": "error", "could not be verified": "warn",
	} {
		lines := log.lines(word)
		if len(lines) != 1 || !strings.Contains(lines[0], `"level":"`+level+`"`) {
			t.Errorf("%s: got %d lines %q, want 1", word, len(lines), lines)
		}
	}
	for _, word := range []string{"token refreshed", "session ended", "have been written", "were dropped"} {
		if len(log.lines(word)) == 0 {
			t.Errorf("got no log line with %q, want one", word)
		}
	}
}

// TestUnreadableRecordIsLoggedOnceAMinute for each part of a record.
func TestUnreadableRecordIsLoggedOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &logBuffer{}
		observe := NewObserver(zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), log, zap.DebugLevel)))
		parts := []seal.Part{seal.PartCommitment, seal.PartKey, seal.PartLogoutMarker}
		for range 3 {
			for range 100 {
				for i, part := range parts {
					observe(keeper.Event{Kind: keeper.EventUnreadable, ID: session.ID{byte(i + 1)}, Err: &seal.UnreadableError{Part: part}})
				}
			}
			time.Sleep(logInterval)
		}
		for _, part := range parts {
			lines := log.lines(`"part":"` + string(part) + `"`)
			if len(lines) != 3 {
				t.Errorf("%s: got %d lines in three minutes, want 3", part, len(lines))
			}
			for _, line := range lines {
				if !strings.Contains(line, `"level":"warn"`) || !strings.Contains(line, `"session":"0`) || !strings.Contains(line, `"error":"the `) {
					t.Errorf("%s: got line %s, want part and cause", part, line)
				}
			}
		}
	})
}
