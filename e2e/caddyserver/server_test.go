package caddyserver

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/client"
	"github.com/oauth-session/caddy-oauth-session/e2e/proc"
	"github.com/oauth-session/caddy-oauth-session/e2e/testrecorder"
)

// proxyConfig returns a configuration with one site in front of an app, and the site's address.
func proxyConfig(t *testing.T) (Config, string) {
	t.Helper()
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "app saw ", r.URL.Path) }))
	t.Cleanup(app.Close)
	site := fmt.Sprintf("http://localhost:%d", proc.FreePort(t))
	return Config{Sites: site + ` {
		bind 127.0.0.1
		log
		reverse_proxy ` + app.Listener.Addr().String() + `
	}`}, site
}

func get(t *testing.T, url string) string {
	t.Helper()
	resp, err := client.New("", "").Navigate(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	return string(resp.Body)
}

func TestDataAndLogSurviveKillAndStop(t *testing.T) {
	t.Parallel()
	config, site := proxyConfig(t)
	s := Start(t, config)
	if got := get(t, site+"/one"); got != "app saw /one" {
		t.Errorf("got %q, want the app's answer", got)
	}
	marker := filepath.Join(s.DataDir, "marker")
	if err := os.MkdirAll(s.DataDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(marker, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.Kill(t)
	s.Restart(t)
	if got := get(t, site+"/two"); got != "app saw /two" {
		t.Errorf("after Kill and Restart: got %q, want the app's answer", got)
	}
	s.Stop(t)
	if _, err := client.New("", "").Navigate(t.Context(), site); err == nil {
		t.Error("after Stop: got an answer, want an error")
	}
	s.Restart(t)
	get(t, site+"/three")
	if _, err := os.Stat(marker); err != nil {
		t.Errorf("the data directory lacks its file: %v", err)
	}
	log := s.Log(t)
	for _, path := range []string{"/one", "/two", "/three"} {
		if !strings.Contains(log, `"uri":"`+path+`"`) {
			t.Errorf("the log lacks the request to %s", path)
		}
	}
	if n := len(s.Entries(t, "http.log.access")); n != 3 {
		t.Errorf("got %d access log entries, want 3", n)
	}
}

func TestReloadKeepsFormerConfigurationOnError(t *testing.T) {
	t.Parallel()
	config, site := proxyConfig(t)
	s := Start(t, config)
	broken := config
	broken.Sites += "\n:0 {\n\tno_such_directive\n}"
	if err := s.Reload(t, broken); err == nil || !strings.Contains(err.Error(), "no_such_directive") {
		t.Errorf("got error %v, want one that names the directive", err)
	}
	if got := get(t, site+"/kept"); got != "app saw /kept" {
		t.Errorf("after a refused reload: got %q, want the app's answer", got)
	}
	other := config
	other.Sites = strings.Replace(config.Sites, "reverse_proxy", "respond reloaded 200\n#", 1)
	if err := s.Reload(t, other); err != nil {
		t.Fatal(err)
	}
	if got := get(t, site); got != "reloaded" {
		t.Errorf("after a reload: got %q, want reloaded", got)
	}
}

func TestAdminAndCommandReachTheServer(t *testing.T) {
	t.Parallel()
	config, site := proxyConfig(t)
	s := Start(t, config)
	status, body := s.Admin(t, http.MethodGet, "/config/apps/http/servers", "")
	if status != http.StatusOK || !strings.Contains(body, strings.TrimPrefix(site, "http://localhost")) {
		t.Errorf("admin endpoint: got %d %s, want 200 and the site's port", status, body)
	}
	version, err := s.Command(t, "version")
	if err != nil || !strings.HasPrefix(version, "v2.") {
		t.Errorf("got version %q and error %v, want v2", version, err)
	}
}

func TestCrashInLogFailsTheTest(t *testing.T) {
	for _, tc := range []struct {
		line string
		want int
	}{
		{`{"level":"info","msg":"served"}`, 0},
		{`{"level":"error","msg":"http: panic serving 127.0.0.1:1: boom"}`, 1},
		{"WARNING: DATA RACE", 1},
		{"fatal error: concurrent map writes", 1},
	} {
		s := &Server{dir: t.TempDir()}
		if err := os.WriteFile(s.logFile(), []byte(tc.line+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		recorder := &testrecorder.Recorder{TB: t}
		s.checkLog(recorder)
		if recorder.Errors != tc.want {
			t.Errorf("%s: got %d errors, want %d", tc.line, recorder.Errors, tc.want)
		}
	}
}
