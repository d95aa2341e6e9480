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
	loginCookie   = "__Host-oauth_login_" // begins the name of each
)

// A plan says how a world differs from the default: one Caddy with its
// sessions in a file, /static/* open to everybody, error pages from another
// app.
type plan struct {
	// redis keeps the sessions in a Redis that two instances share.
	redis bool
	// redisArgs are further arguments of redis-server.
	redisArgs []string
	// redisStore is what follows `store redis`. Default: the URL. {REDIS} stands
	// for it.
	redisStore string
	// matcher stands behind the directive, and is defined in before.
	matcher string
	// options are more lines for the directive; public replaces the line
	// `optional /static/*`, base the one with base_url ("-": none).
	options, optionalLine, baseURLLine string
	// before and after are directives before oauth_session and behind the app.
	before, after string
	// ownErrors leaves error pages to the module: there is no handle_errors.
	moduleErrors bool
	// global are lines for the global options block, sites further sites. In
	// them {TLS} stands for the certificate, {ADDR} for where the site listens,
	// {PORT} for its port.
	global, sites string
	// env is more environment, KEY=value.
	env []string
	// keys are in the key file. Default: one.
	keys []string
	// knobs changes how the authorization servers behave, whatever tests do.
	knobs func(*fakeas.Knobs)
}

// A world is everything between a browser and its app, in one test or for all
// of them.
type world struct {
	site      string // https://app.test:PORT
	host      string // the same without the scheme
	instances []*instance
	// idp is the authorization server of the site, other one that it knows
	// nothing of.
	idp, other *fakeas.Server
	// app gets the requests of the site, errorApp those of its error routes.
	app, errorApp *echo.Server
	attacker      *recorder
	redis         *redisserver.Server // nil unless planned

	authority *x509.CertPool
	cert      string // the `tls` line of every site
	plan      plan

	// clientSecret and keys are canaries. fixed are further secrets.
	clientSecret string
	allKeys      []string // all there ever were
	keyFile      string

	mu             sync.Mutex
	cookieValues   map[string]bool // the values of all our cookies so far
	addedSecrets   []string
	sentToBrowsers []byte // what browsers got, since it was last looked through
	pendingLeaks   []leak
	logOffsets     map[string]int64 // how much of a log has been looked through

	transports []*http.Transport
	goroutines int  // soon after the start
	down       bool // the test leaves the site out of order, see expectDown
	inspected  bool // in this test
}

// An instance is one Caddy of the site.
type instance struct {
	*caddyserver.Server
	addr   string // where it listens
	config caddyserver.Config
}

var (
	sharedOnce, redisOnce, bareOnce    sync.Once
	sharedWorld, redisWorld, bareWorld *world
)

// shared returns the default world that all tests share. They use it one after
// the other: a test that calls shared must not be parallel.
func shared(t *testing.T) *world {
	t.Helper()
	sharedOnce.Do(func() { wholeSuite.run(func() { sharedWorld = startWorld(wholeSuite, plan{}) }) })
	if sharedWorld == nil {
		t.Fatal("the shared world did not start")
	}
	sharedWorld.startTest(t)
	return sharedWorld
}

// sharedRedis is shared with two instances and their sessions in a Redis.
func sharedRedis(t *testing.T) *world {
	t.Helper()
	redisOnce.Do(func() { wholeSuite.run(func() { redisWorld = startWorld(wholeSuite, plan{redis: true}) }) })
	if redisWorld == nil {
		t.Fatal("the shared world did not start")
	}
	redisWorld.startTest(t)
	return redisWorld
}

// sharedBare is shared with a site that does not know its public origin, and
// makes its error pages itself.
func sharedBare(t *testing.T) *world {
	t.Helper()
	bareOnce.Do(func() {
		wholeSuite.run(func() { bareWorld = startWorld(wholeSuite, plan{baseURLLine: "-", moduleErrors: true}) })
	})
	if bareWorld == nil {
		t.Fatal("the shared world did not start")
	}
	bareWorld.startTest(t)
	return bareWorld
}

// newWorld starts a world for one test.
func newWorld(t *testing.T, p plan) *world {
	t.Helper()
	w := startWorld(t, p)
	w.startTest(t)
	return w
}

// begin puts the world into its first state for a test, and has it inspected
// when the test is over.
func (w *world) startTest(t testing.TB) {
	w.resetServers()
	w.app.Reset()
	w.errorApp.Reset()
	w.attacker.reset()
	w.inspected = false
	w.inspectAtEnd(t)
}

// inspectFirst has the world inspected before whatever a test has started until
// now is stopped at its end. It must be called again after a Restart.
func (w *world) inspectAtEnd(t testing.TB) {
	atCleanup(t, func(t testing.TB) {
		if !w.inspected {
			w.inspected = true
			w.inspect(t)
		}
	})
}

// calm ends whatever the servers have been told to do.
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
		// What has to be encoded in a form is in it (RFC 6749, section 2.3.1).
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

// setKeys writes the key file. Caddy reads it at its start, and again some
// seconds after a change.
func (w *world) writeKeys(t testing.TB, keys ...string) {
	t.Helper()
	w.allKeys = append(w.allKeys, keys...)
	if err := os.WriteFile(w.keyFile, []byte(strings.Join(keys, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// directives is the inside of the site.
func (w *world) siteBody() string {
	text := "bind 127.0.0.1\n" + w.cert + "\nlog\n" + w.plan.before + "\n" + w.directive() +
		"reverse_proxy " + w.app.Addr() + " {\n\theader_up X-User {http.auth.user.id}\n\theader_up X-Email {http.auth.user.email}\n" +
		"\ttransport http {\n\t\tkeepalive_idle_conns_per_host 4\n\t}\n}\n" + // or they hide goroutines that are left behind
		w.plan.after + "\n"
	if !w.plan.moduleErrors {
		// The other app makes the page, the status stays that of the error.
		text += "handle_errors {\n\treverse_proxy " + w.errorApp.Addr() + " {\n\t\t@any status 2xx\n\t\thandle_response @any {\n\t\t\tcopy_response {\n\t\t\t\tstatus {err.status_code}\n\t\t\t}\n\t\t}\n\t}\n}\n"
	}
	return text
}

// protect is the directive under test.
func (w *world) directive() string {
	lines := []string{
		"issuer " + w.idp.URL, "client_id " + clientID, "client_secret {env.CLIENT_SECRET}",
		"scope openid profile email offline_access", "key {file." + w.keyFile + "}",
	}
	switch w.plan.baseURLLine {
	case "":
		lines = append(lines, "base_url "+w.site)
	case "-":
	default:
		lines = append(lines, w.plan.baseURLLine)
	}
	if w.plan.optionalLine == "" {
		lines = append(lines, "optional /static/*")
	} else {
		lines = append(lines, w.plan.optionalLine)
	}
	if w.redis != nil {
		store := cmp.Or(w.plan.redisStore, "{REDIS}")
		lines = append(lines, "store redis "+strings.ReplaceAll(store, "{REDIS}", w.redis.URL()))
	}
	lines = append(lines, w.plan.options)
	return "oauth_session " + w.plan.matcher + " {\n\t" + strings.Join(lines, "\n\t") + "\n}\n"
}

// dir is everything that a Caddy keeps on disk: configuration, logs, sessions.
func (in *instance) dir() string { return filepath.Dir(filepath.Dir(in.DataDir)) }

// sessionsFile is the store of a world without Redis.
func (in *instance) sessionsFile() string {
	return filepath.Join(in.DataDir, "oauth_session", "sessions.db")
}

// tokenCalls is how many requests the token endpoint has got.
func (w *world) tokenRequests() int { return w.idp.Stats().Requests[fakeas.EndpointToken] }

// refreshes is how many of them were to refresh.
func (w *world) refreshes() int { return w.idp.Stats().Grants[fakeas.GrantRefresh] }

// tell changes what the server says of the life of the access tokens it issues
// from now on. They really live for long.
func (w *world) announceLifetime(seconds int) {
	w.idp.Set(func(k *fakeas.Knobs) {
		edit := fakeas.Edit{Set: map[string]any{"expires_in": seconds}}
		k.LoginAnswer, k.RefreshAnswer = edit, edit
	})
}

// isAuthorization reports whether a URL leads to the login of the site's own
// authorization server.
func (w *world) isAuthorization(u *url.URL) bool {
	return u != nil && strings.HasPrefix(u.String(), w.idp.URL+"/authorize?")
}
