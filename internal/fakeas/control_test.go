package fakeas

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// control sends a request to the control interface.
func (g *rig) control(method, path, body string) result {
	g.t.Helper()
	return g.do(http.NewRequest(method, g.as.URL+"/ctl/"+path, strings.NewReader(body)))
}

func TestPostedKnobsReplaceOnlyTheNamedOnes(t *testing.T) {
	g := newRig(t, func(k *Knobs) { k.RefreshTokenNeeds = map[string]string{"old": "1"} })
	r := g.control(http.MethodPost, "knobs", `{
		"access_token_lifetime": "1.5s", "grace": 2000000000, "rotation": "grace",
		"refresh_token_needs": {"access_type": "offline"},
		"refresh_answer": {"set": {"expires_in": 3600.0, "scope": null}, "omit": ["id_token"]},
		"login_id_token": {"defect": "alg_none"}}`)
	if r.status != 200 {
		t.Fatalf("posting knobs: got %d %s, want 200", r.status, r.body)
	}
	k := g.as.Knobs()
	if k.AccessTokenLifetime != 1500*time.Millisecond || k.Grace != 2*time.Second || k.Rotation != RotateGrace || k.IDTokenLifetime != 5*time.Minute {
		t.Errorf("got the knobs %+v", k)
	}
	if diff := cmp.Diff(map[string]string{"access_type": "offline"}, k.RefreshTokenNeeds); diff != "" {
		t.Errorf("refresh_token_needs (-want +got):\n%s", diff)
	}
	if k.LoginIDToken.Defect != DefectNone {
		t.Errorf("got defect %q, want %q", k.LoginIDToken.Defect, DefectNone)
	}
	token := g.login("access_type", "offline").text("refresh_token")
	if body := g.wantRefreshed(token).body; !strings.Contains(body, `"expires_in":3600.0`) || !strings.Contains(body, `"scope":null`) || strings.Contains(body, "id_token") {
		t.Errorf("refresh answer: got %s, want the posted edit", body)
	}
	for _, bad := range []string{`{"rotaton": "never"}`, `{"grace": "long"}`, `[]`, `{`, `{"metadata": {"sett": {}}}`} {
		if r := g.control(http.MethodPost, "knobs", bad); r.status != 400 {
			t.Errorf("posting %s: got %d %s, want 400", bad, r.status, r.body)
		}
	}
	if after := g.as.Knobs(); after.Rotation != RotateGrace || after.Grace != 2*time.Second {
		t.Errorf("a refused post changed the knobs to %+v", after)
	}
	// POST accepts the result of GET.
	if r := g.control(http.MethodPost, "knobs", g.control(http.MethodGet, "knobs", "").body); r.status != 200 {
		t.Errorf("posting the result of GET: got %d %s, want 200", r.status, r.body)
	}
}

func TestControlInterfaceOffersAllFunctions(t *testing.T) {
	g := newSocketRig(t)
	var hits int
	app := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits++ }))
	defer app.Close()
	for _, step := range []struct{ path, body string }{
		{"clients", `{"client_id": "app", "client_secret": "s3cret", "redirect_uris": ["` + callbackURI + `"], "backchannel_logout_uri": "` + app.URL + `"}`},
		{"users", `{"name": "alice", "sub": "a1"}`},
		{"keys", `{"action": "rotate"}`},
		{"keys", `{"action": "replace"}`},
		{"keys", `{"action": "retire"}`},
		{"faults", `{"grant": "refresh_token", "status": 503, "delay": "1ms"}`},
		{"faults", `[{"grant": "refresh_token", "delivery": "eof"}]`},
		{"logout", `{"client_id": "app", "sub": "a1"}`},
	} {
		if r := g.control(http.MethodPost, step.path, step.body); r.status != 200 {
			t.Errorf("POST %s: got %d %s, want 200", step.path, r.status, r.body)
		}
	}
	if hits != 1 {
		t.Errorf("the client got %d logout tokens, want 1", hits)
	}
	login := g.login()
	if info := g.bearer("/userinfo", login.text("access_token")); info.text("sub") != "a1" {
		t.Errorf("userinfo: got %s, want the subject a1", info.body)
	}
	if r := g.refresh(login.text("refresh_token")); r.status != 503 {
		t.Errorf("refresh with the first fault: got status %d, want 503", r.status)
	}
	if r := g.refresh(login.text("refresh_token")); r.err == nil {
		t.Errorf("refresh with the second fault: got status %d, want no answer", r.status)
	}
	if r := g.control(http.MethodGet, "valid?token="+login.text("access_token"), ""); r.json["valid"] != true || r.text("user") != "alice" {
		t.Errorf("valid: got %s, want alice's valid token", r.body)
	}
	g.control(http.MethodPost, "revoke", `{"token": "`+login.text("access_token")+`"}`)
	if r := g.control(http.MethodGet, "valid?token="+login.text("access_token"), ""); r.json["valid"] != false {
		t.Errorf("valid after revocation: got %s, want false", r.body)
	}
	for path, want := range map[string]string{"stats": `"refresh_token": 2`, "tokens": `"kind": "refresh_token"`, "secrets": "RT_", "log": `"endpoint": "userinfo"`} {
		if r := g.control(http.MethodGet, path, ""); !strings.Contains(r.body, want) {
			t.Errorf("GET %s: got %s, want %s in it", path, r.body, want)
		}
	}
	g.control(http.MethodDelete, "log", "")
	if n := len(g.as.Log()); n != 0 {
		t.Errorf("after DELETE log: got %d entries, want none", n)
	}
	for _, step := range [][2]string{{"keys", `{"action": "melt"}`}, {"faults", `{"statu": 1}`}, {"faults", `7`}, {"logout", `{"client_id": "x"}`}, {"users", `{"nam": 1}`}} {
		if r := g.control(http.MethodPost, step[0], step[1]); r.status != 400 {
			t.Errorf("POST %v: got %d %s, want 400", step, r.status, r.body)
		}
	}
}

func TestLogKeepsTheNewestRequests(t *testing.T) {
	g := newRig(t)
	g.login("scope", "api")
	g.refresh("RT_0")
	log := g.as.Log(EndpointToken)
	if len(log) != 2 || log[0].Form.Get("code_verifier") != verifier || log[0].ClientID != "app" || log[0].AuthMethod != AuthBasic ||
		log[1].Error != "invalid_grant" || log[1].Status != 400 || log[1].Reason != "unknown refresh token" {
		t.Errorf("log of the token endpoint: got %+v", log)
	}
	if all := g.as.Log(); len(all) != 3 || all[0].Endpoint != EndpointAuthorize || all[0].Query.Get("nonce") != "n0nce" {
		t.Errorf("whole log: got %+v", all)
	}
	var ring requestLog
	for i := range maxLog + 3 {
		ring.add(Entry{Status: i})
	}
	g.as.log = ring
	if all := g.as.Log(); len(all) != maxLog || all[0].Status != 3 || all[maxLog-1].Status != maxLog+2 {
		t.Errorf("full log: got %d entries from number %d, want %d from 3", len(all), all[0].Status, maxLog)
	}
}

// TestKnobsAndKeysMayChangeDuringRequests needs the race detector.
func TestKnobsAndKeysMayChangeDuringRequests(t *testing.T) {
	g := newRig(t, func(k *Knobs) {
		k.Metadata.Set = map[string]any{"x": 1}
	})
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			g.as.Set(func(k *Knobs) { k.Metadata.Set["x"] = i })
			g.as.RotateKey()
			g.as.RetireKeys()
		}
	}()
	for range 50 {
		g.get(wellKnownOpenID)
		g.get("/jwks")
		g.login()
	}
	close(stop)
	<-done
}
