package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/e2e/promrules"
	"github.com/oauth-session/caddy-oauth-session/e2e/redisserver"
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

const monitoringDir = "../examples/monitoring/"

// An incident is a Caddy with Redis and an authorization server, and what Prometheus has seen of it.
type incident struct {
	*fleet
	user     *visitor
	token    string
	recorder *promrules.Recorder
	phases   []incidentPhase
}

// An incidentPhase is a part of the recorded time.
type incidentPhase struct {
	name string
	from int      // the first step
	want []string // the alerts that fire at its end
}

func (in *incident) scrape(t *testing.T) string {
	_, metrics := in.nodes[0].Admin(t, http.MethodGet, "/metrics", "")
	return metrics
}

// begin begins a phase at whose end some alerts fire.
func (in *incident) begin(name string, want ...string) {
	in.phases = append(in.phases, incidentPhase{name: name, from: in.recorder.Steps(), want: want})
}

// pass lets minutes pass in which nothing changes.
func (in *incident) pass(t *testing.T, minutes int) {
	in.recorder.Record(in.scrape(t), minutes*int(time.Minute/promrules.Step))
}

// refresh waits for n refreshes, with a scrape after each.
func (in *incident) refresh(t *testing.T, n int) {
	for range n {
		in.token = in.user.awaitNewToken(t, 0, in.token)
		in.recorder.Record(in.scrape(t), 1)
	}
}

// awaitMetric sends requests until a line of the metrics is there.
func (in *incident) awaitMetric(t *testing.T, line string) {
	t.Helper()
	eventually(t, line, func() bool {
		_, _ = in.user.ask(t.Context(), 0) // may be refused during the incident
		return strings.Contains(in.scrape(t), "\n"+line)
	})
}

// wantLogged sends requests until a line of the log has all of the texts.
func (in *incident) wantLogged(t *testing.T, texts ...string) {
	t.Helper()
	eventually(t, fmt.Sprintf("log line with %q", texts), func() bool {
		_, _ = in.user.ask(t.Context(), 0)
		for line := range strings.Lines(in.nodes[0].Log(t)) {
			if !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(line, text) }) {
				return true
			}
		}
		return false
	})
}

// fillRedisDuringARefresh lets Redis refuse writes while the authorization server answers a refresh, whose tokens can then
// not be written.
func (in *incident) fillRedisDuringARefresh(t *testing.T) {
	answer := fakeas.NewGate()
	granted := in.as.Stats().Granted[fakeas.GrantRefresh]
	in.as.Fail(fakeas.Hold(answer).For(fakeas.GrantRefresh))
	ctx, stop := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	asking.Go(func() {
		for ctx.Err() == nil {
			_, _ = in.user.ask(ctx, 0)
		}
	})
	eventually(t, "refresh", func() bool { return in.as.Stats().Granted[fakeas.GrantRefresh] > granted })
	in.redis.Do(t, "CONFIG", "SET", "maxmemory", "1")
	answer.Open()
	stop()
	asking.Wait()
}

// TestIncidentIsSeen replays an incident: the authorization server is slow, down and back, the client's secret is replaced
// there, and Redis is full. Log and metrics say what happened, since when and to whom, and the example's alerts fire.
func TestIncidentIsSeen(t *testing.T) {
	t.Parallel()
	in := &incident{
		fleet: startFleet(t, fleetPlan{
			options: "refresh_timeout 50s", keys: []string{newKey()}, redis: redisserver.Start(t, redisserver.Options{Args: []string{"--maxmemory-policy", "noeviction"}}),
		}),
		recorder: promrules.New("caddy_oauth_session_"),
	}
	in.setExpiresIn(shortLife)
	in.user = in.loginVisitor(t, "mine", 0)
	site := `"site":"localhost"`

	in.begin("healthy")
	in.refresh(t, 2)
	in.pass(t, 5)

	in.begin("authorization server slow", "OAuthSessionRefreshSlow")
	in.setExpiresIn(8 * time.Second) // a token must outlive its own request
	in.as.Set(func(k *fakeas.Knobs) { k.LatencyBefore = 3 * time.Second })
	in.refresh(t, 3)
	in.pass(t, 2)
	in.as.Set(func(k *fakeas.Knobs) { k.LatencyBefore = 0 })
	in.setExpiresIn(shortLife)

	in.begin("authorization server down", "OAuthSessionIssuerDown")
	in.as.Fail(fakeas.Answer(http.StatusServiceUnavailable, "text/plain", "down").For(fakeas.GrantRefresh).Repeat(1 << 20))
	in.awaitMetric(t, `caddy_oauth_session_issuer_up{issuer="`+in.as.URL+`"} 0`)
	in.wantLogged(t, `"level":"warn"`, "refresh failed; the session is kept", site, `"user":"mine"`, "503")
	in.pass(t, 7)

	in.begin("back")
	in.as.ClearFaults()
	in.awaitMetric(t, `caddy_oauth_session_issuer_up{issuer="`+in.as.URL+`"} 1`)
	in.pass(t, 6)

	in.begin("client secret replaced at the server", "OAuthSessionMisconfigured")
	in.as.AddClient(fakeas.Client{ID: in.op.ClientID, Secret: "another-secret-canary", RedirectURIs: []string{in.site + "/oauth2/callback"}})
	in.wantLogged(t, `"level":"error"`, "the authorization server refuses this client", site, `"user":"mine"`, "invalid_client")
	in.pass(t, 1)
	in.as.AddClient(fakeas.Client{ID: in.op.ClientID, Secret: in.op.ClientSecret, RedirectURIs: []string{in.site + "/oauth2/callback"}})

	in.begin("Redis full", "OAuthSessionStoreDown", "OAuthSessionUnwritten")
	in.refresh(t, 1)
	in.pass(t, 6)
	in.fillRedisDuringARefresh(t)
	in.awaitMetric(t, `caddy_oauth_session_store_up{store="redis:`+in.redis.Addr+`"} 0`)
	in.wantLogged(t, `"level":"warn"`, "the session store cannot be used", `"sites":["localhost"]`, "OOM", "maxmemory")
	in.awaitMetric(t, `caddy_oauth_session_unwritten_total{site="localhost"} 1`)
	in.wantLogged(t, `"level":"error"`, "new tokens could not be written to the store", site, `"user":"mine"`)
	in.pass(t, 2)

	in.begin("over")
	in.redis.Do(t, "CONFIG", "SET", "maxmemory", "0")
	in.awaitMetric(t, `caddy_oauth_session_store_up{store="redis:`+in.redis.Addr+`"} 1`)
	in.wantLogged(t, `"level":"info"`, "the session store works again", `"sites":["localhost"]`)
	in.wantLogged(t, `"level":"info"`, "tokens served from memory have been written", `"user":"mine"`)
	in.pass(t, 7)

	if stats := in.as.Stats(); stats.Requests[fakeas.EndpointAuthorize] != 1 || stats.Reuses != 0 {
		t.Errorf("got %d logins and %d reuses, want one and none: an incident ends no session", stats.Requests[fakeas.EndpointAuthorize], stats.Reuses)
	}
	in.checkAlerts(t)
}

// checkAlerts compares the alerts that fire with those of the phases, and all names in rules and dashboard with the scrapes.
func (in *incident) checkAlerts(t *testing.T) {
	rules := promrules.ReadRules(t, monitoringDir+"alerts.yml")
	firing := in.recorder.Firing(t, rules)
	for i, phase := range in.phases {
		end := in.recorder.Steps()
		if i+1 < len(in.phases) {
			end = in.phases[i+1].from
		}
		var got []string
		for _, rule := range rules {
			if firing[rule.Name][end-1] {
				got = append(got, rule.Name)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, phase.want) {
			t.Errorf("at the end of %q: got alerts %v, want %v", phase.name, got, phase.want)
		}
	}
	known := in.recorder.Names()
	check := func(where, expr string) {
		for name, labels := range promrules.Selected(t, expr) {
			if known[name] == nil {
				t.Errorf("%s: got no metric %s", where, name)
			}
			for _, label := range labels {
				if known[name] != nil && !known[name][label] {
					t.Errorf("%s: %s has no label %s", where, name, label)
				}
			}
		}
	}
	for _, rule := range rules {
		check(rule.Name, rule.Expr)
	}
	for _, expr := range dashboardExpressions(t) {
		check("dashboard", expr)
	}
	if os.Getenv("UPDATE") == "1" {
		in.draw(t, rules, firing)
	}
}

// dashboardExpressions returns the expressions of the dashboard. Its variable stands for every site.
func dashboardExpressions(t *testing.T) (all []string) {
	t.Helper()
	text, err := os.ReadFile(monitoringDir + "dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			all = append(all, strings.ReplaceAll(target.Expr, "$site", ".*"))
		}
	}
	if len(all) < 10 {
		t.Fatalf("got %d expressions in the dashboard", len(all))
	}
	return all
}

// draw writes the picture of docs/metrics.md: the phases, and when each alert fired.
func (in *incident) draw(t *testing.T, rules []promrules.Rule, firing map[string][]bool) {
	const left, perStep, row = 220, 4, 22
	width := left + in.recorder.Steps()*perStep + 10
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	shown := slices.DeleteFunc(slices.Clone(rules), func(r promrules.Rule) bool { return !slices.Contains(firing[r.Name], true) })
	line(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`, width, (len(shown)+2)*row+110)
	line(`<rect width="100%%" height="100%%" fill="#fff"/>`)
	bottom := (len(shown)+1)*row + 10
	for i, phase := range in.phases {
		end := in.recorder.Steps()
		if i+1 < len(in.phases) {
			end = in.phases[i+1].from
		}
		x := left + phase.from*perStep
		line(`<rect x="%d" y="10" width="%d" height="%d" fill="%s"/>`, x, (end-phase.from)*perStep, bottom-10, []string{"#f4f4f4", "#e6e6e6"}[i%2])
		line(`<text x="%d" y="%d" transform="rotate(30 %d %d)" fill="#222">%s</text>`, x+4, bottom+14, x+4, bottom+14, phase.name)
	}
	for i, rule := range shown {
		y := 10 + i*row
		line(`<text x="10" y="%d" fill="#222">%s</text>`, y+15, rule.Name)
		for step, fires := range firing[rule.Name] {
			if fires {
				line(`<rect x="%d" y="%d" width="%d" height="12" fill="#b3261e"/>`, left+step*perStep, y+5, perStep)
			}
		}
	}
	line(`<text x="10" y="%d" fill="#222">one step is %s</text>`, bottom-6, promrules.Step)
	line(`</svg>`)
	if err := os.WriteFile("../docs/incident.svg", []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}
