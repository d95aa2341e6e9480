package security

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// TestScanFindsPlantedSecrets is the positive control for the leak scan at the end of
// every test: it finds a planted secret in each place, and nothing before that.
func TestScanFindsPlantedSecrets(t *testing.T) {
	const inMetrics = "PLANTED_0123456789abcdef0123456789abcdef"
	awaitTurn(t)
	w := startWorld(t, plan{
		redis: true, global: "\tservers {ADDR} {\n\t\tname {$IN_METRICS}\n\t}\n",
		env:    []string{"IN_METRICS=" + inMetrics},
		before: "header /static/head X-Leak {http.request.uri.query.leak}",
	})
	b := w.browser()
	b.login(t, "/")
	b.at(1).checkSession(t)
	if found := w.findLeaks(t); len(found) > 0 {
		t.Fatalf("before planting: got leaks %v, want none", found)
	}
	for _, s := range w.plantable(t) {
		t.Run(s.kind, func(t *testing.T) {
			w.plant(t, s.value)
			places := map[string]bool{}
			for _, f := range w.findLeaks(t) {
				places[f.place] = places[f.place] || f.kind == s.kind
			}
			for _, place := range []string{
				"an answer to a browser", "instance 1: caddy.log", "instance 2: planted.db", "Redis",
				"the attacker's server", "the error app", "the app",
			} {
				// The app is the one place where access tokens belong.
				want := place != "the app" || s.kind != string(fakeas.KindAccess)
				if places[place] != want {
					t.Errorf("%s: found %v, want %v", place, places[place], want)
				}
			}
		})
	}
	w.addSecret(inMetrics)
	if found := w.findLeaks(t); !slices.ContainsFunc(found, func(f leak) bool { return f.place == "instance 1: /metrics" }) {
		t.Errorf("got leaks %v, want one in the metrics", found)
	}
}

type plantable struct{ kind, value string }

// plantable returns one secret of each kind.
func (w *world) plantable(t *testing.T) []plantable {
	all := []plantable{{kindClient, w.clientSecret}, {kindKey, w.allKeys[0]}}
	kinds := map[fakeas.Kind]bool{}
	known := map[string]bool{}
	for _, issued := range w.idp.Tokens() {
		known[issued.Value] = true
		if !kinds[issued.Kind] {
			kinds[issued.Kind] = true
			all = append(all, plantable{string(issued.Kind), issued.Value})
		}
	}
	for _, value := range w.idp.Secrets() {
		if !known[value] {
			all = append(all, plantable{kindVerifier, value})
			break
		}
	}
	for value := range w.cookieValues {
		all = append(all, plantable{kindCookie, value})
		break
	}
	if len(all) != 8 {
		t.Fatalf("got %d kinds of secrets, want 8", len(all))
	}
	return all
}

// plant puts a value into every place that the leak scan covers, except the metrics.
func (w *world) plant(t *testing.T, value string) {
	t.Helper()
	w.app.Reset()
	w.errorApp.Reset()
	w.attacker.reset()
	for _, to := range []string{w.app.URL, w.errorApp.URL, w.attacker.URL} {
		resp, err := http.Post(to+"/planted?leak="+value, "text/plain", strings.NewReader(""))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	w.browser().send(t, http.MethodGet, "/static/head?leak="+strings.ReplaceAll(value, "%", "%25"), "")
	w.redis.Do(t, "HSET", "planted", "field", value)
	if err := os.WriteFile(filepath.Join(w.instances[1].DataDir, "planted.db"), []byte(value), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestScanFindsPartsOfSecrets: the scan finds a secret that is truncated or surrounded by
// other bytes.
func TestScanFindsPartsOfSecrets(t *testing.T) {
	w := &world{
		idp: fakeas.New(fakeas.Options{}), other: fakeas.New(fakeas.Options{}),
		allKeys: []string{newKey()}, clientSecret: canary("CS_", 32), cookieValues: map[string]bool{},
	}
	cookie := strings.Repeat("A", 20) + "BCDEFGHIJKLMNOPQRSTUVWX"
	w.cookieValues[cookie] = true
	n := newSecretFinder(w.secrets())
	noise := strings.Repeat("0123456789abcdef", 1000)
	for name, text := range map[string]string{
		"first bytes of a key": w.allKeys[0][:partSize], "last bytes of a cookie": tail(cookie), "a secret": w.clientSecret,
	} {
		if got := n.find("here", []byte(noise+text+noise)); len(got) != 1 {
			t.Errorf("%s: found %v, want one leak", name, got)
		}
	}
	if got := n.find("here", []byte(noise+w.allKeys[0][:partSize-1]+"-"+tail(cookie)[1:])); len(got) != 0 {
		t.Errorf("found %v, want none", got)
	}
}
