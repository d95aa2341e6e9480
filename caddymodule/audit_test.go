package caddymodule

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	_ "github.com/caddyserver/caddy/v2/modules/caddyevents/eventsconfig"

	"github.com/oauth-session/caddy-oauth-session/handler"
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/keeper"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// auditLine waits for a line of the audit trail and returns its members.
func auditLine(t *testing.T, event string, texts ...string) map[string]any {
	t.Helper()
	line := captured.wait(t, append([]string{`"logger":"http.handlers.oauth_session.audit"`, `"event":"` + event + `"`}, texts...)...)
	var members map[string]any
	if err := json.Unmarshal([]byte(line), &members); err != nil {
		t.Fatal(err)
	}
	return members
}

func wantMembers(t *testing.T, got map[string]any, want map[string]any) {
	t.Helper()
	for name, value := range want {
		if got[name] != value {
			t.Errorf("%v: got %s %v, want %v", got["event"], name, got[name], value)
		}
	}
}

// referenceIn returns the reference on a page.
func referenceIn(t *testing.T, body string) string {
	t.Helper()
	found := regexp.MustCompile(`reference ([A-Z2-7]{8})\b`).FindStringSubmatch(body)
	if found == nil {
		t.Fatalf("got no reference on the page:\n%s", body)
	}
	return found[1]
}

// TestAuditTrailOfASession: who came in, from where, and how the session ended.
func TestAuditTrailOfASession(t *testing.T) {
	w := newWorld(t)
	w.load(site("", ""))
	b := newBrowser(t, w.origin)
	b.login("/")
	login := auditLine(t, "login")
	wantMembers(t, login, map[string]any{"user": "alice", "client_ip": "127.0.0.1", "site": "localhost", "level": "info"})
	if login["session"] == "" || login["request_id"] == nil || login["reference"] == "" {
		t.Errorf("got %v, want it with session, request_id and reference", login)
	}
	b.send(http.MethodPost, "/oauth2/logout", http.Header{"Origin": {w.origin}})
	same := map[string]any{"user": "alice", "session": login["session"], "site": "localhost"}
	wantMembers(t, auditLine(t, "logout"), same)
	ended := auditLine(t, "session_ended")
	wantMembers(t, ended, same)
	wantMembers(t, ended, map[string]any{"reason": "logout"})
	for _, event := range []string{"login", "logout", "session_ended"} {
		if lines := captured.lines(`"event":"` + event + `"`); len(lines) != 1 {
			t.Errorf("%s: got %d lines, want one", event, len(lines))
		}
	}
}

// TestDeniedClaimIsExplained: the page, the log, the audit trail and the access log have
// the same reference, and the log says which claim was wanted and what was wrong with it.
func TestDeniedClaimIsExplained(t *testing.T) {
	for name, tc := range map[string]struct{ option, found string }{
		"absent":      {"require department sales", "absent"},
		"other value": {"require sub bob carol", "other value"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.load(site(tc.option, ""))
			b := newBrowser(t, w.origin)
			page := b.visit("/")
			reference := referenceIn(t, page.body)
			claim := strings.Fields(tc.option)[1]
			wantMembers(t, auditLine(t, "access_denied"), map[string]any{"claim": claim, "found": tc.found, "user": "alice", "reference": reference})
			line := captured.wait(t, `"level":"warn"`, "does not have a required claim", `"request_id":"`)
			for _, want := range []string{`"claim":"` + claim + `"`, `"found":"` + tc.found + `"`, `"user":"alice"`, `"` + strings.Fields(tc.option)[2] + `"`} {
				if !strings.Contains(line, want) {
					t.Errorf("got %s, want %s in it", line, want)
				}
			}
			captured.wait(t, "http.log.access", `"oauth_session_reference":"`+reference+`"`)
			var problem struct{ Reference string }
			if a := b.fetch("/"); json.Unmarshal([]byte(a.body), &problem) != nil || len(problem.Reference) != 8 {
				t.Errorf("got %s, want a reference", a.body)
			}
		})
	}
}

// TestRefusedLoginIsAudited with the code of the authorization server. The log has its
// description at a level that operators see.
func TestRefusedLoginIsAudited(t *testing.T) {
	w := newWorld(t)
	w.load(site("", ""))
	w.as.Set(func(k *fakeas.Knobs) {
		k.Callback = fakeas.Edit{Set: map[string]any{"error": "invalid_scope", "error_description": "scope offline_access is unknown"}, Omit: []string{"code"}}
	})
	page := newBrowser(t, w.origin).visit("/")
	wantMembers(t, auditLine(t, "login_refused"), map[string]any{"reason": "invalid_scope", "reference": referenceIn(t, page.body), "client_ip": "127.0.0.1"})
	captured.wait(t, `"level":"error"`, "invalid_scope", "scope offline_access is unknown", `"request_id":"`)
}

// TestRevocationIsAudited: who asked for it, and each session that ended.
func TestRevocationIsAudited(t *testing.T) {
	w := newWorld(t)
	w.load(site("", ""))
	newBrowser(t, w.origin).login("/")
	if status, _ := askSessions(http.MethodDelete, "user=alice"); status != http.StatusOK {
		t.Fatalf("got status %d, want 200", status)
	}
	wantMembers(t, auditLine(t, "session_revoked"), map[string]any{"by": "admin endpoint", "user": "alice", "ended": 1.0})
	wantMembers(t, auditLine(t, "session_ended"), map[string]any{"reason": "revoked", "user": "alice"})
}

// TestServerLogoutIsAudited with the user of the session.
func TestServerLogoutIsAudited(t *testing.T) {
	w := newWorld(t)
	w.load(site("", ""))
	newBrowser(t, w.origin).login("/")
	w.as.AddClient(fakeas.Client{ID: "app", Secret: testSecret, BackchannelLogoutURI: w.origin + "/oauth2/backchannel_logout"})
	token, err := w.as.LogoutToken(fakeas.Logout{ClientID: "app", Subject: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := w.as.SendLogout(t.Context(), http.DefaultClient, "app", token); err != nil {
			t.Fatal(err)
		}
	}
	wantMembers(t, auditLine(t, "backchannel_logout"), map[string]any{"user": "alice"})
	wantMembers(t, auditLine(t, "session_ended"), map[string]any{"reason": "backchannel_logout", "user": "alice"})
}

// TestTamperedRecordIsAuditedOnceAMinute: a browser may ask again and again.
func TestTamperedRecordIsAuditedOnceAMinute(t *testing.T) {
	var got []handler.AuditEvent
	observe := handler.NewAuditObserver(func(e handler.AuditEvent) { got = append(got, e) })
	for range 10 {
		observe(keeper.Event{Kind: keeper.EventUnreadable, ID: session.ID{1}, Err: &seal.UnreadableError{Part: seal.PartHot}})
		observe(keeper.Event{Kind: keeper.EventRefreshed})
	}
	if len(got) != 1 || got[0].Kind != handler.AuditStoreTampered || got[0].Reason != "hot" || got[0].Session != (session.ID{1}) || got[0].Reference == "" {
		t.Errorf("got %+v, want one event with the part", got)
	}
}

// eventRecorder is a handler of Caddy events.
type eventRecorder struct{}

var recordedEvents = make(chan caddy.Event, 100)

func (eventRecorder) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "events.handlers.record", New: func() caddy.Module { return new(eventRecorder) }}
}

func (*eventRecorder) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	return nil
}

func (eventRecorder) Handle(_ context.Context, e caddy.Event) error {
	recordedEvents <- e
	return nil
}

// TestCaddyEvents: a handler of Caddy events hears of logins, refreshes and ends, with
// their users and without secrets.
func TestCaddyEvents(t *testing.T) {
	w := newWorld(t)
	w.load("{\nevents {\non oauth_session.login record\non oauth_session.refreshed record\non oauth_session.ended record\non oauth_session.logout record\n}\n}\n" + site("", ""))
	b := newBrowser(t, w.origin)
	b.login("/")
	// A session is refreshed once in a second at most.
	for end := time.Now().Add(patience); len(captured.lines("token refreshed")) == 0 && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		b.send(http.MethodPost, "/oauth2/session/refresh", http.Header{"Origin": {w.origin}})
	}
	b.send(http.MethodPost, "/oauth2/logout", http.Header{"Origin": {w.origin}})
	want := map[string]string{eventLogin: "", eventRefreshed: "", eventLogout: "", eventEnded: "logout"}
	for range len(want) {
		var e caddy.Event
		select {
		case e = <-recordedEvents:
		case <-time.After(patience):
			t.Fatalf("got no event of %v", want)
		}
		reason, ok := want[e.Name()]
		if !ok {
			t.Fatalf("got event %s again or unasked", e.Name())
		}
		delete(want, e.Name())
		data := e.Data
		if data["user"] != "alice" || data["site"] != "localhost" || data["session"] == "" || reason != "" && data["reason"] != reason {
			t.Errorf("%s: got %v", e.Name(), data)
		}
		text, err := json.Marshal(data)
		if err != nil {
			t.Fatal(err)
		}
		if found := regexp.MustCompile(`(AT|RT|CODE)_[0-9a-f]{16}`).Find(text); found != nil {
			t.Errorf("%s: got %s in its data", e.Name(), found)
		}
	}
}

// TestAuditPageListsTheEvents: docs/audit.md has each kind of event and each member.
func TestAuditPageListsTheEvents(t *testing.T) {
	text, err := os.ReadFile("../docs/audit.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		handler.AuditLogin, handler.AuditLoginRefused, handler.AuditAccessDenied, handler.AuditLogout, handler.AuditBackchannelLogout,
		handler.AuditFrontchannelLogout, handler.AuditSessionEnded, handler.AuditStoreTampered, "session_revoked",
		"reference", "session", "user", "reason", "claim", "found", "client_ip", "user_agent", "request_id", "site", "by", "selector", "ended", "remote",
		"oauth_session_reference", eventLogin, eventRefreshed, eventEnded, eventLogout,
	} {
		if !strings.Contains(string(text), "`"+name+"`") {
			t.Errorf("docs/audit.md: got no `%s`", name)
		}
	}
}
