package caddymodule

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/caddyauth"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/encode"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/encode/gzip"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/fileserver"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/headers"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/logging"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/map"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/rewrite"
	_ "github.com/caddyserver/caddy/v2/modules/filestorage"
	_ "github.com/caddyserver/caddy/v2/modules/logging"

	"github.com/oauth-session/caddy-oauth-session/internal/echo"
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
	"github.com/oauth-session/caddy-oauth-session/internal/loopback"
)

// A process has one running configuration, so tests of this package must not be parallel.
func TestMain(m *testing.M) {
	caddy.RegisterModule(captureWriter{})
	caddy.RegisterModule(announcingModule{})
	caddy.RegisterModule(eventRecorder{})
	caddy.RegisterModule(failingEventHandler{})
	os.Exit(m.Run())
}

// patience is the longest wait for an event. It is long enough for a busy machine.
const patience = 2 * time.Minute

const testSecret = "CS_3f0a9d5c1b7e4286"

// world is an authorization server, an app, and Caddy between them.
type world struct {
	t      *testing.T
	as     *fakeas.Server
	app    *echo.Server
	port   string
	origin string
	data   string // Caddy's data directory
}

// newWorld starts the servers. Caddyfiles use them as {$ISSUER}, {$APP}, {$PORT} and
// {$DATA}, and the client secret as {env.SECRET}.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{
		t: t, as: fakeas.Start(t, fakeas.Options{}), app: echo.Start(t, echo.Options{}),
		port: freePort(t), data: isolate(t),
	}
	// Generating an RSA key on a busy machine may take longer than the module waits for a response.
	w.as.Set(func(k *fakeas.Knobs) { k.SigningAlg = "ES256" })
	w.origin = "http://localhost:" + w.port
	w.register("app", w.origin)
	for name, value := range map[string]string{
		"ISSUER": w.as.URL, "APP": w.app.Addr(), "PORT": w.port, "DATA": w.data, "SECRET": testSecret,
	} {
		t.Setenv(name, value)
	}
	captured.reset()
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// register adds a client with the redirect URIs of some origins.
func (w *world) register(id string, origins ...string) {
	c := fakeas.Client{ID: id, Secret: testSecret}
	for _, o := range origins {
		c.RedirectURIs = append(c.RedirectURIs, o+"/oauth2/callback")
		c.PostLogoutRedirectURIs = append(c.PostLogoutRedirectURIs, o+"/oauth2/logout/callback")
	}
	w.as.AddClient(c)
}

// isolate gives Caddy temporary directories and returns its data directory.
func isolate(t *testing.T) (data string) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("XDG_DATA_HOME", dir)
	t.Setenv("XDG_CONFIG_HOME", dir)
	return filepath.Join(dir, "caddy")
}

// freePort reserves a port for the test.
func freePort(t *testing.T) string {
	t.Helper()
	return strconv.Itoa(loopback.FreePort(t))
}

// site returns a Caddyfile with one site: loginOptions, additional options, additional
// directives, and reverse_proxy.
func site(options, directives string) string {
	return fmt.Sprintf("http://localhost:{$PORT} {\nlog\noauth_session {\n%s\n%s\n}\n%s\nreverse_proxy {$APP}\n}\n", loginOptions, options, directives)
}

// loginOptions configure a login at the world's authorization server.
const loginOptions = "issuer {$ISSUER}\nclient_id app\nclient_secret {env.SECRET}\nscope openid offline_access\nstore memory"

// globals isolate a configuration. A Caddyfile that begins with a block of global options
// adds to them.
const globals = "admin off\npersist_config off\ndefault_bind 127.0.0.1\nauto_https off\nstorage file_system {$DATA}\nlog {\noutput capture\nlevel DEBUG\n}\n"

// config adapts a Caddyfile to an isolated configuration.
func (w *world) config(text string) []byte {
	w.t.Helper()
	return w.configWith(globals, text)
}

func (w *world) configWith(globals, text string) []byte {
	w.t.Helper()
	if rest, ok := strings.CutPrefix(text, "{\n"); ok {
		text = "{\n" + globals + rest
	} else {
		text = "{\n" + globals + "}\n" + text
	}
	adapted, err := adapt(text)
	if err != nil {
		w.t.Fatalf("adapting: %v", err)
	}
	return adapted
}

// load loads a Caddyfile into the running Caddy.
func (w *world) load(text string) {
	w.t.Helper()
	if err := w.tryLoad(text); err != nil {
		w.t.Fatalf("loading: %v", err)
	}
}

// loadWith loads a Caddyfile with other global options than globals.
func (w *world) loadWith(globals, text string) {
	w.t.Helper()
	if err := w.tryLoadConfig(w.configWith(globals, text)); err != nil {
		w.t.Fatalf("loading: %v", err)
	}
}

func (w *world) tryLoad(text string) error {
	w.t.Helper()
	return w.tryLoadConfig(w.config(text))
}

func (w *world) tryLoadConfig(config []byte) error {
	w.t.Helper()
	if err := caddy.Load(config, true); err != nil {
		return err
	}
	// All later requests must reach the new configuration.
	closeIdleConnections()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		twice, err := loopback.ListensTwice("self")
		if err != nil || time.Now().After(end) {
			w.t.Fatalf("got the old configuration still listening, error %v", err)
		}
		if !twice {
			return nil
		}
	}
}

// validate does the same as `caddy validate`.
func (w *world) validate(text string) error {
	w.t.Helper()
	var c *caddy.Config
	if err := json.Unmarshal(w.config(text), &c); err != nil {
		w.t.Fatal(err)
	}
	return caddy.Validate(c)
}

func adapt(text string) ([]byte, error) {
	out, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), map[string]any{"filename": "Caddyfile"})
	return out, err
}

// captureWriter is a log output that tests read.
type captureWriter struct{}

// captured holds the log of Caddy.
var captured capture

type capture struct {
	mu      sync.Mutex
	text    strings.Builder
	changed chan struct{}
}

func (captureWriter) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "caddy.logging.writers.capture", New: func() caddy.Module { return new(captureWriter) }}
}

func (*captureWriter) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	return nil
}

func (captureWriter) String() string                      { return "capture" }
func (captureWriter) WriterKey() string                   { return "capture" }
func (captureWriter) OpenWriter() (io.WriteCloser, error) { return &captured, nil }

func (c *capture) Close() error { return nil }

func (c *capture) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
	return c.text.Write(b)
}

func (c *capture) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.text.Reset()
}

func (c *capture) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.String()
}

// lines returns the log lines in which all of the texts occur.
func (c *capture) lines(texts ...string) []string {
	var found []string
next:
	for line := range strings.Lines(c.String()) {
		for _, text := range texts {
			if !strings.Contains(line, text) {
				continue next
			}
		}
		found = append(found, line)
	}
	return found
}

// wait waits for a line with all of the texts and returns it.
func (c *capture) wait(t *testing.T, texts ...string) string {
	t.Helper()
	deadline := time.After(patience)
	for {
		c.mu.Lock()
		if c.changed == nil {
			c.changed = make(chan struct{})
		}
		changed := c.changed
		c.mu.Unlock()
		if found := c.lines(texts...); len(found) > 0 {
			return found[0]
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("got no log line with %q in:\n%s", texts, c)
		}
	}
}
