package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/e2e/caddyserver"
	"github.com/oauth-session/caddy-oauth-session/e2e/op"
	"github.com/oauth-session/caddy-oauth-session/e2e/tomcat"
	"github.com/oauth-session/caddy-oauth-session/internal/echo"
)

// A spelling is a request target that a server may resolve to a path below /private, with Tomcat's verdicts without the proxy,
// in the order of tomcat.Readings.
type spelling struct {
	target   string
	verdicts []string
}

func (s spelling) String() string { return strings.Join(s.verdicts, "\t") + "\t" + s.target }

const (
	protectedPaths = "testdata/paths/protected.tsv"
	ordinaryPaths  = "testdata/paths/ordinary.txt"
)

// lines returns the lines of a file, without the comment at its beginning.
func lines(t testing.TB, file string) (comment string, lines []string) {
	t.Helper()
	content, err := os.ReadFile(filepath.FromSlash(file))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(content)) {
		if strings.HasPrefix(line, "# ") {
			comment += line
		} else {
			lines = append(lines, strings.TrimSuffix(line, "\n"))
		}
	}
	return comment, lines
}

// spellings reads the spellings of protected paths.
func spellings(t testing.TB) (all []spelling) {
	t.Helper()
	_, records := lines(t, protectedPaths)
	for _, line := range records {
		fields := strings.Split(line, "\t")
		if len(fields) != len(tomcat.Readings)+1 {
			t.Fatalf("%s: got line %q, want %d fields", protectedPaths, line, len(tomcat.Readings)+1)
		}
		last := len(fields) - 1
		all = append(all, spelling{target: fields[last], verdicts: fields[:last]})
	}
	return all
}

// openSites returns configurations that protect /private/* only.
func openSites(s *op.Server) map[string]string {
	options := strings.TrimPrefix(protect(s, ""), "oauth_session ")
	return map[string]string{
		"a matcher":       "oauth_session /private/* " + options,
		"a named matcher": "@private expression `path('/private/*')`\noauth_session @private " + options,
		"optional":        "@open not path /private/*\n" + protect(s, "optional @open"),
	}
}

// TestPathsReadInTwoWays: without a session, no spelling of a protected path reaches the app, and every ordinary path does.
func TestPathsReadInTwoWays(t *testing.T) {
	t.Parallel()
	all := spellings(t)
	_, ordinary := lines(t, ordinaryPaths)
	site := newSite(t)
	_, s := startFake(t, site+"/oauth2/callback")
	for name, directives := range openSites(s) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			site, app := newSite(t), echo.Start(t, echo.Options{})
			caddyserver.Start(t, caddyserver.Config{Env: secret(s), Sites: block(site, directives+"reverse_proxy "+app.Addr())})
			for _, sp := range all {
				app.Reset()
				status, _ := rawGet(t, site, sp.target)
				for _, r := range app.Requests() {
					target := strings.Split(r.Line, " ")[1]
					t.Errorf("%s: the app got %s (%s for Tomcat), want no request", sp.target, target, tomcat.Readings[1].Verdict(target))
				}
				if status != http.StatusUnauthorized && status != http.StatusBadRequest {
					t.Errorf("%s: got status %d, want 401 or 400", sp.target, status)
				}
			}
			for _, target := range ordinary {
				app.Reset()
				if status, _ := rawGet(t, site, target); status != http.StatusOK || len(app.Requests()) != 1 {
					t.Errorf("%s: got status %d and %d requests at the app, want 200 and 1", target, status, len(app.Requests()))
				}
			}
		})
	}
}

// TestStandInReadsAsTomcat compares package tomcat's reimplementation with the recorded verdicts of a real Tomcat.
func TestStandInReadsAsTomcat(t *testing.T) {
	t.Parallel()
	reached := make([]int, len(tomcat.Readings))
	for _, sp := range spellings(t) {
		for i, reading := range tomcat.Readings {
			got := reading.Verdict(sp.target)
			if got != sp.verdicts[i] {
				t.Errorf("%s, %s: got %s, want Tomcat's %s", sp.target, reading.Name, got, sp.verdicts[i])
			}
			if got == tomcat.Private {
				reached[i]++
			}
		}
	}
	for i, reading := range tomcat.Readings {
		if reached[i] < 150 {
			t.Errorf("%s: got %d spellings of private paths, want at least 150", reading.Name, reached[i])
		}
	}
	_, ordinary := lines(t, ordinaryPaths)
	for _, target := range ordinary {
		for _, reading := range tomcat.Readings {
			if got := reading.Verdict(target); got != tomcat.Public {
				t.Errorf("%s, %s: got %s, want %s", target, reading.Name, got, tomcat.Public)
			}
		}
	}
}

// TestTomcat is TestPathsReadInTwoWays with a real Tomcat, and needs Maven and Java. TOMCAT=1 enables it, and TOMCAT=record
// also records Tomcat's verdicts.
func TestTomcat(t *testing.T) {
	if os.Getenv("TOMCAT") == "" {
		t.Skip("TOMCAT is not set")
	}
	all := spellings(t)
	_, ordinary := lines(t, ordinaryPaths)
	addrs := tomcat.Start(t)
	compareWithTomcat(t, all, addrs)
	site := newSite(t)
	_, s := startFake(t, site+"/oauth2/callback")
	for i, reading := range tomcat.Readings {
		for name, directives := range openSites(s) {
			t.Run(reading.Name+", "+name, func(t *testing.T) {
				site := newSite(t)
				caddyserver.Start(t, caddyserver.Config{Env: secret(s), Sites: block(site, directives+"reverse_proxy "+addrs[i])})
				reached, refused, direct := 0, 0, 0
				for _, sp := range all {
					if sp.verdicts[i] == tomcat.Private {
						direct++
					}
					if status, servlet := rawGet(t, site, sp.target); servlet == tomcat.Private || status == http.StatusOK {
						reached++
						t.Errorf("%s: got status %d and servlet %q, want none", sp.target, status, servlet)
					}
				}
				for _, target := range ordinary {
					if status, servlet := rawGet(t, site, target); servlet != tomcat.Public {
						refused++
						t.Errorf("%s: got status %d and servlet %q, want the public one", target, status, servlet)
					}
				}
				t.Logf("%d spellings (%d reach the private servlet without the proxy), %d reached a servlet; %d of %d ordinary paths refused",
					len(all), direct, reached, refused, len(ordinary))
			})
		}
	}
}

// compareWithTomcat compares the recorded verdicts with those of a real Tomcat, or records them.
func compareWithTomcat(t *testing.T, all []spelling, addrs []string) {
	t.Helper()
	record := os.Getenv("TOMCAT") == "record"
	comment, _ := lines(t, protectedPaths)
	recorded := bytes.NewBufferString(comment)
	for n := range all {
		for i, addr := range addrs {
			status, got := rawGet(t, "http://"+addr, all[n].target)
			if got == "" {
				got = fmt.Sprint(status)
			}
			if got != all[n].verdicts[i] && !record {
				t.Errorf("%s, %s: got %s, want the recorded %s", all[n].target, tomcat.Readings[i].Name, got, all[n].verdicts[i])
			}
			all[n].verdicts[i] = got
		}
		fmt.Fprintln(recorded, all[n])
	}
	if record {
		if err := os.WriteFile(filepath.FromSlash(protectedPaths), recorded.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// rawGet sends a GET with the unchanged target. It returns the status and the name of the Tomcat servlet that answered.
func rawGet(t testing.TB, site, target string) (status int, servlet string) {
	t.Helper()
	host := strings.TrimPrefix(site, "http://")
	_, port, _ := strings.Cut(host, ":")
	conn, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience)) // fails only on a closed connection
	target = strings.Replace(target, "http://localhost", "http://"+host, 1)
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", target, host); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("%s: %v", target, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s: %v", target, err)
	}
	name, _, _ := strings.Cut(string(body), " ")
	if resp.StatusCode != http.StatusOK || name != tomcat.Private && name != tomcat.Public {
		name = ""
	}
	return resp.StatusCode, name
}
