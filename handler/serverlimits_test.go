package handler

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// lasts returns max_expires_in of the session endpoint.
func (g *rig) lasts(cookie string) time.Duration {
	g.t.Helper()
	var info struct {
		Authenticated bool
		Idle          int64 `json:"idle_expires_in"`
		Max           int64 `json:"max_expires_in"`
	}
	a := g.get("/oauth2/session", with(cookie, script)...)
	if err := json.Unmarshal([]byte(a.body), &info); err != nil || !info.Authenticated {
		g.t.Fatalf("got status %d, error %v, want a session: %s", a.status, err, a.body)
	}
	if info.Idle > info.Max {
		g.t.Errorf("got idle_expires_in %d, want max_expires_in %d at most", info.Idle, info.Max)
	}
	return time.Duration(info.Max) * time.Second
}

// wantLasts allows a minute for a slow test.
func wantLasts(t *testing.T, got, want time.Duration) {
	t.Helper()
	if got > want || got < want-time.Minute {
		t.Errorf("got max_expires_in %v, want %v", got, want)
	}
}

// TestSessionEndpointTellsTheTrueEnd: the earliest of the limits that the server names,
// and of max_lifetime. A limit of an odd kind counts as missing.
func TestSessionEndpointTellsTheTrueEnd(t *testing.T) {
	const hour, day = time.Hour, 24 * time.Hour
	at := func(d time.Duration) any { return time.Now().Add(d).Unix() }
	null := json.RawMessage("null")
	for name, tt := range map[string]struct {
		answer map[string]any
		expiry any // session_expiry; nil: none
		want   time.Duration
	}{
		"nothing":                        {nil, nil, day},
		"session_expiry":                 {nil, at(2 * hour), 2 * hour},
		"session_expiry with a fraction": {nil, float64(time.Now().Add(2*hour).UnixMilli()) / 1000, 2 * hour},
		"later session_expiry":           {nil, at(100 * hour), day},
		"refresh_token_timeout":          {map[string]any{"refresh_token_timeout": 3600}, nil, hour},
		"authorization_expires_in":       {map[string]any{"authorization_expires_in": 7200}, nil, 2 * hour},
		"refresh_expires_in":             {map[string]any{"refresh_expires_in": 1800}, nil, hour / 2},
		"refresh_token_expires_in":       {map[string]any{"refresh_token_expires_in": "5400"}, nil, hour * 3 / 2},
		"the earliest":                   {map[string]any{"refresh_token_timeout": 7200, "authorization_expires_in": 3600, "refresh_expires_in": 5400}, at(3 * hour), hour},
		"session_expiry is the earliest": {map[string]any{"refresh_token_timeout": 7200}, at(hour), hour},
		"no refresh token":               {map[string]any{"refresh_token": null}, nil, 5*time.Minute - 10*time.Second},
		"later than max_lifetime":        {map[string]any{"refresh_token_timeout": 1000000}, nil, day},

		"for ever":                    {map[string]any{"refresh_expires_in": 0}, nil, day},
		"lifetimes of odd kinds":      {map[string]any{"refresh_token_timeout": -1, "authorization_expires_in": "soon", "refresh_expires_in": []int{1}}, nil, day},
		"endless lifetime":            {map[string]any{"refresh_token_timeout": 1e300}, nil, day},
		"session_expiry as a text":    {nil, "1900000000", day},
		"session_expiry null":         {nil, null, day},
		"session_expiry 0":            {nil, 0, day},
		"session_expiry negative":     {nil, -1, day},
		"session_expiry in ms":        {nil, time.Now().UnixMilli(), day},
		"session_expiry is an object": {nil, map[string]any{"at": 1}, day},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newRig(t)
			g.as.Set(func(k *fakeas.Knobs) {
				k.LoginAnswer.Set = tt.answer
				if tt.expiry != nil {
					k.LoginIDToken = claim("session_expiry", tt.expiry)
				}
			})
			wantLasts(t, g.lasts(g.loggedIn().jar.get(sessionCookie).Value), tt.want)
		})
	}
}

// TestSessionExpiryOfUserInfoDoesNotCount: the ID token alone limits the session.
func TestSessionExpiryOfUserInfoDoesNotCount(t *testing.T) {
	g := newRig(t, func(s *setup) { s.handler.UserInfo = true })
	g.as.Set(func(k *fakeas.Knobs) {
		k.LoginIDToken = claim("session_expiry", time.Now().Add(time.Hour).Unix())
		k.UserInfo.Set = map[string]any{"session_expiry": time.Now().Add(20 * time.Hour).Unix()}
	})
	wantLasts(t, g.lasts(g.loggedIn().jar.get(sessionCookie).Value), time.Hour)
}

// TestSessionExpiryInThePastLogsNobodyIn: such a session would end at once, and the next
// login would do the same.
func TestSessionExpiryInThePastLogsNobodyIn(t *testing.T) {
	for name, expiry := range map[string]int64{"a minute ago": time.Now().Add(-time.Minute).Unix(), "a lifetime in place of a time": 3600} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			g.as.Set(func(k *fakeas.Knobs) { k.LoginIDToken = claim("session_expiry", expiry) })
			b := g.browser()
			if a := b.open("/wanted"); a.status != 502 || !strings.Contains(a.body, "login_failed") || b.jar.get(sessionCookie) != nil {
				t.Errorf("got status %d, want 502 and no session: %s", a.status, a.body)
			}
			if lines := g.log.lines("session_expiry is"); len(lines) != 1 {
				t.Errorf("the log says %q, want the cause", lines)
			}
		})
	}
}

// TestRefreshedIDTokenMovesTheEnd, and one without the claim keeps it.
func TestRefreshedIDTokenMovesTheEnd(t *testing.T) {
	at := func(d time.Duration) any { return time.Now().Add(d).Unix() }
	for name, tt := range map[string]struct {
		edit fakeas.TokenEdit
		want time.Duration
	}{
		"later":             {claim("session_expiry", at(3*time.Hour)), 3 * time.Hour},
		"earlier":           {claim("session_expiry", at(time.Hour)), time.Hour},
		"past max_lifetime": {claim("session_expiry", at(100*time.Hour)), 24 * time.Hour},
		"left out":          {fakeas.TokenEdit{}, 2 * time.Hour},
		"a text":            {claim("session_expiry", "1900000000"), 2 * time.Hour},
		"0":                 {claim("session_expiry", 0), 2 * time.Hour},
		"not verified":      {fakeas.TokenEdit{Defect: fakeas.DefectFlipped, Claims: fakeas.Edit{Set: map[string]any{"session_expiry": at(time.Hour)}}}, 2 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newRig(t)
			g.as.Set(func(k *fakeas.Knobs) {
				k.LoginIDToken, k.RefreshIDToken = claim("session_expiry", at(2*time.Hour)), tt.edit
			})
			cookie := g.expiredLogin()
			g.refreshed(cookie)
			wantLasts(t, g.lasts(cookie), tt.want)
		})
	}
	t.Run("in the past", func(t *testing.T) {
		g := newRig(t)
		cookie := g.expiredLogin()
		g.as.Set(func(k *fakeas.Knobs) { k.RefreshIDToken = claim("session_expiry", at(-time.Minute)) })
		if a := g.get("/", with(cookie, script)...); a.status != 401 || a.relayed != 0 {
			t.Errorf("got status %d, want 401", a.status)
		}
		gone(t, g, cookie)
	})
}
