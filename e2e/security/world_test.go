package security

import (
	"cmp"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/caddyserver"
	"github.com/oauth-session/caddy-oauth-session/e2e/proc"
	"github.com/oauth-session/caddy-oauth-session/e2e/redisserver"
	"github.com/oauth-session/caddy-oauth-session/internal/echo"
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

const (
	siteName       = "app.test"
	clientID       = "app"
	prefix         = "/oauth2"
	login          = prefix + "/login"
	callback       = prefix + "/callback"
	logout         = prefix + "/logout"
	logoutCallback = prefix + "/logout/callback"
	sessionInfo    = prefix + "/session"
	refresh        = prefix + "/session/refresh"
	backchannel    = prefix + "/backchannel_logout"

	sessionCookie = "__Host-oauth_session"
	loginCookie   = "__Host-oauth_login_" // prefix of the names
)

// A plan is the difference of a world from the default. By default a world has one Caddy
// with its sessions in a file, the optional path /static/*, and error pages from another
// app.
type plan struct {
	// redis keeps the sessions in a Redis that two instances share.
	redis bool
	// redisArgs are additional arguments of redis-server.
	redisArgs []string
	// redisStore is the text after `store redis`, by default {REDIS}. {REDIS} becomes the
	// URL.
	redisStore string
	// options are additional lines of the directive. optionalLine replaces the line
	// `optional /static/*`.
	options, optionalLine string
	// noBaseURL omits the line with base_url.
	noBaseURL bool
	// before are directives before oauth_session.
	before string
	// moduleErrors omits handle_errors, so that the module makes the error pages.
	moduleErrors bool
	// global are lines of the global options block; sites are additional sites. In both,
	// {TLS} becomes the `tls` line, {ADDR} the address of the site and {PORT} its port.
	global, sites string
	// env are additional environment variables, KEY=value.
	env []string
	// keys are the server keys in the key file. Default: one new key.
	keys []string
	// mostlyWaits excludes the test from the limit of active tests. It is for tests that wait many
	// seconds for the end of a token, a session or a timeout.
	mostlyWaits bool
	// knobs changes the default knobs of both authorization servers.
	knobs func(*fakeas.Knobs)
}

// A world is a complete environment of the site: see the package documentation.
type world struct {
	site      string // https://app.test:PORT
	host      string // app.test:PORT
	instances []*instance
	// idp is the site's authorization server. The site does not know the server other.
	idp, other *fakeas.Server
	// app serves the site; errorApp serves its error pages.
	app, errorApp *echo.Server
	attacker      *recorder
	redis         *redisserver.Server // nil without plan.redis

	authority *x509.CertPool
	cert      string // the `tls` line of every site
	plan      plan

	// clientSecret, allKeys and addedSecrets are secrets for the leak scan.
	clientSecret string
	allKeys      []string // current and former server keys
	keyFile      string

	mu             sync.Mutex
	cookieValues   map[string]bool // all values of the module's cookies
	addedSecrets   []string
	sentToBrowsers []byte // bytes to browsers since the last scan
	pendingLeaks   []leak
	logOffsets     map[string]int64 // bytes of each log scanned so far

	transports []*http.Transport
	goroutines int  // number after the start
	inspected  bool // the current test has been inspected
}

// An instance is one Caddy of the site.
type instance struct {
	*caddyserver.Server
	addr   string // listening address
	config caddyserver.Config
}

// startTest resets the world for a test and registers the inspection.
func (w *world) startTest(t testing.TB) {
	w.resetServers()
	w.app.Reset()
	w.errorApp.Reset()
	w.attacker.reset()
	w.inspected = false
	w.inspectAtEnd(t)
}

// inspectAtEnd registers the inspection. Cleanups run in reverse order, so call it again
// after a Restart: the inspection must precede the stop of the new process.
func (w *world) inspectAtEnd(t testing.TB) {
	atCleanup(t, func(t testing.TB) {
		if !w.inspected {
			w.inspected = true
			w.inspect(t)
		}
	})
}

// resetServers restores the default behaviour of the authorization servers.
func (w *world) resetServers() {
	for _, as := range []*fakeas.Server{w.idp, w.other} {
		as.ClearFaults()
		as.Set(func(k *fakeas.Knobs) {
			*k = fakeas.DefaultKnobs()
			k.SigningAlg = "ES256" // signs many times faster than RS256
			if w.plan.knobs != nil {
				w.plan.knobs(k)
			}
		})
	}
}

func startWorld(t testing.TB, p plan) *world {
	t.Helper()
	port := proc.FreePort(t)
	w := &world{
		host: fmt.Sprintf("%s:%d", siteName, port), plan: p,
		app:      echo.Start(t, echo.Options{HideAuthorization: true}),
		errorApp: echo.Start(t, echo.Options{HideAuthorization: true}),
		attacker: startRecorder(t),
		// The secret contains characters that a form encodes (RFC 6749, section 2.3.1).
		clientSecret: canary("CS_", 32) + ":+%&",
		cookieValues: map[string]bool{}, logOffsets: map[string]int64{},
	}
	w.site = "https://" + w.host
	w.authority, w.cert = issueCertificate(t, siteName, "*."+siteName, "other.test", "localhost")
	client := fakeas.Client{
		ID: clientID, Secret: w.clientSecret, RedirectURIs: []string{w.site + callback},
		PostLogoutRedirectURIs: []string{w.site + logoutCallback}, BackchannelLogoutURI: w.site + backchannel,
	}
	w.idp = fakeas.Start(t, fakeas.Options{Clients: []fakeas.Client{client}})
	w.other = fakeas.Start(t, fakeas.Options{Clients: []fakeas.Client{client}})
	w.resetServers()
	if p.keys == nil {
		p.keys = []string{newKey()}
	}
	w.keyFile = filepath.Join(t.TempDir(), "keys")
	w.writeKeys(t, p.keys...)
	instances := 1
	if p.redis {
		instances = 2
		w.redis = redisserver.Start(t, redisserver.Options{Args: p.redisArgs})
	}
	for i := range instances {
		if i > 0 {
			port = proc.FreePort(t)
		}
		w.start(t, port)
	}
	w.browser().login(t, "/first")
	w.goroutines = w.countGoroutines(t)
	return w
}

func (w *world) start(t testing.TB, port int) {
	t.Helper()
	in := &instance{addr: fmt.Sprintf("127.0.0.1:%d", port)}
	fill := strings.NewReplacer("{TLS}", w.cert, "{ADDR}", in.addr, "{PORT}", fmt.Sprint(port))
	in.config = caddyserver.Config{
		Global: "\tauto_https disable_redirects\n\tmetrics\n" + fill.Replace(w.plan.global),
		Sites:  fmt.Sprintf("https://%s:%d {\n%s}\n", siteName, port, w.siteBody()) + fill.Replace(w.plan.sites),
		Env:    append([]string{"CLIENT_SECRET=" + w.clientSecret}, w.plan.env...),
	}
	in.Server = caddyserver.Start(t, in.config)
	w.instances = append(w.instances, in)
}

// writeKeys writes the key file. Caddy reads it at its start, and again some seconds after
// a change.
func (w *world) writeKeys(t testing.TB, keys ...string) {
	t.Helper()
	w.allKeys = append(w.allKeys, keys...)
	if err := os.WriteFile(w.keyFile, []byte(strings.Join(keys, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// siteBody returns the directives of the site.
func (w *world) siteBody() string {
	text := "bind 127.0.0.1\n" + w.cert + "\nlog\n" + w.plan.before + "\n" + w.directive() +
		"reverse_proxy " + w.app.Addr() + " {\n\theader_up X-User {http.auth.user.id}\n\theader_up X-Email {http.auth.user.email}\n" +
		"\ttransport http {\n\t\tkeepalive_idle_conns_per_host 4\n\t}\n}\n" // more idle connections would hide leaked goroutines
	if !w.plan.moduleErrors {
		// The error app makes the page; the status stays that of the error.
		text += "handle_errors {\n\treverse_proxy " + w.errorApp.Addr() + " {\n\t\t@any status 2xx\n\t\thandle_response @any {\n\t\t\tcopy_response {\n\t\t\t\tstatus {err.status_code}\n\t\t\t}\n\t\t}\n\t}\n}\n"
	}
	return text
}

// directive returns the directive under test.
func (w *world) directive() string {
	lines := []string{
		"issuer " + w.idp.URL, "client_id " + clientID, "client_secret {env.CLIENT_SECRET}",
		"scope openid profile email offline_access", "key {file." + w.keyFile + "}",
	}
	if !w.plan.noBaseURL {
		lines = append(lines, "base_url "+w.site)
	}
	lines = append(lines, cmp.Or(w.plan.optionalLine, "optional /static/*"))
	if w.redis != nil {
		store := cmp.Or(w.plan.redisStore, "{REDIS}")
		lines = append(lines, "store redis "+strings.ReplaceAll(store, "{REDIS}", w.redis.URL()))
	}
	lines = append(lines, w.plan.options)
	return "oauth_session {\n\t" + strings.Join(lines, "\n\t") + "\n}\n"
}

// dir is the directory of everything that Caddy writes: configuration, logs, sessions.
func (in *instance) dir() string { return filepath.Dir(filepath.Dir(in.DataDir)) }

// sessionsFile is the session store of a world without Redis.
func (in *instance) sessionsFile() string {
	return filepath.Join(in.DataDir, "oauth_session", "sessions.db")
}

// tokenRequests returns the number of requests to the token endpoint.
func (w *world) tokenRequests() int { return w.idp.Stats().Requests[fakeas.EndpointToken] }

// refreshes returns the number of refreshes among them.
func (w *world) refreshes() int { return w.idp.Stats().Grants[fakeas.GrantRefresh] }

// announceLifetime sets the expires_in of access tokens, in seconds, from here on. The
// server accepts the tokens for longer.
func (w *world) announceLifetime(seconds int) {
	w.idp.Set(func(k *fakeas.Knobs) {
		edit := fakeas.Edit{Set: map[string]any{"expires_in": seconds}}
		k.LoginAnswer, k.RefreshAnswer = edit, edit
	})
}

// isAuthorization reports whether a URL is an authorization request to the site's own
// server.
func (w *world) isAuthorization(u *url.URL) bool {
	return u != nil && strings.HasPrefix(u.String(), w.idp.URL+"/authorize?")
}
