package caddymodule

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// defaultSite is a site with the default key and store.
const defaultSite = "http://localhost:{$PORT} {\noauth_session {\nissuer {$ISSUER}\nclient_id app\nclient_secret {env.SECRET}\n}\nreverse_proxy {$APP}\n}\n"

// listFiles lists all files below a directory. A missing directory has none.
func listFiles(t *testing.T, dir string) (files []string) {
	t.Helper()
	_ = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && path != dir {
			files = append(files, path)
		}
		return nil
	})
	return files
}

// The process that runs the configuration creates the key, the store and their directory
// as its own user. Validation and failed reloads create nothing.
func TestOnlyStartCreatesFiles(t *testing.T) {
	w := newWorld(t)
	if err := w.validate(defaultSite); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"in a later site":    defaultSite + "http://b.localhost:{$PORT} {\noauth_session {\nissuer {$ISSUER}\nclient_id b\ntrusted_ca /nonexistent/ca.pem\n}\n}\n",
		"in an earlier site": "http://a.localhost:{$PORT} {\noauth_session {\nissuer {$ISSUER}\nclient_id b\ncookie {\nname wrong\n}\n}\n}\n" + defaultSite,
	} {
		if err := w.tryLoad(bad); err == nil {
			t.Fatalf("mistake %s: got no error", name)
		}
	}
	if found := listFiles(t, filepath.Join(w.data, "oauth_session")); found != nil {
		t.Errorf("before the start: got files %q, want none", found)
	}
	if _, err := os.Stat(filepath.Join(w.data, "oauth_session")); !os.IsNotExist(err) {
		t.Errorf("before the start: got error %v of the directory, want no such file", err)
	}
	w.load(defaultSite)
	newBrowser(t, w.origin).login("/")
	if _, err := os.Stat(filepath.Join(w.data, "oauth_session", "key")); err != nil {
		t.Error(err)
	}
}

// Validation next to a running Caddy changes neither its key nor its store. It reports an
// invalid key.
func TestValidateChecksKeyWithoutChangingFiles(t *testing.T) {
	w := newWorld(t)
	w.load(defaultSite)
	b := newBrowser(t, w.origin)
	b.login("/")
	before := listFiles(t, w.data)
	if err := w.validate(defaultSite); err != nil {
		t.Error(err)
	}
	if after := listFiles(t, w.data); len(after) != len(before) {
		t.Errorf("got files %q, want %q", after, before)
	}
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	w.load(defaultSite)
	if a := b.open("/"); a.status != http.StatusOK {
		t.Errorf("after a restart: got status %d, want 200", a.status)
	}
	if err := os.WriteFile(filepath.Join(w.data, "oauth_session", "key"), []byte("changeme\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := w.validate(defaultSite); err == nil || !strings.Contains(err.Error(), "oauth_session/key") || strings.Contains(err.Error(), "changeme") {
		t.Errorf("got error %v, want one with the file name and without its content", err)
	}
}

// Two processes that start at the same time use the key that was written first.
func TestConcurrentStartsAgreeOnOneKey(t *testing.T) {
	isolate(t)
	one, two := new(ownKey), new(ownKey)
	var sites []*seal.Site
	for _, k := range []*ownKey{one, one, two} {
		ring, err := k.ring()
		if err != nil {
			t.Fatal(err)
		}
		site := seal.NewSite(ring, "issuer", "client", "")
		k.use(site)
		sites = append(sites, site)
	}
	for _, k := range []*ownKey{two, one, two} {
		if err := k.keep(); err != nil {
			t.Fatal(err)
		}
	}
	for i, from := range sites {
		value, err := from.SealForBrowser("cookie", []byte("x"))
		if err != nil {
			t.Fatal(err)
		}
		for j, to := range sites {
			if _, ok := to.OpenFromBrowser("cookie", value); !ok {
				t.Errorf("site %d: got an error for a cookie of site %d", j, i)
			}
		}
	}
}

// Caddy may accept requests before it starts the app that creates the key. Such a request
// creates the key file, so it uses no key that is not in the file.
func TestRequestBeforeStartCreatesKey(t *testing.T) {
	w := newWorld(t)
	var c *caddy.Config
	if err := json.Unmarshal(w.config(defaultSite), &c); err != nil {
		t.Fatal(err)
	}
	ctx, err := caddy.ProvisionContext(c)
	if err != nil {
		t.Fatal(err)
	}
	app, err := ctx.App("http")
	if err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(w.data, "oauth_session", "key")
	if _, err := os.Stat(key); !os.IsNotExist(err) {
		t.Fatalf("after provisioning: got error %v of the key, want no such file", err)
	}
	for _, server := range app.(*caddyhttp.App).Servers {
		t.Cleanup(func() { cleanUpRoutes(t, server.Routes) })
		r := httptest.NewRequest(http.MethodGet, w.origin+"/", nil)
		r.Header.Set("Accept", "text/html")
		rec := httptest.NewRecorder()
		server.ServeHTTP(rec, r)
		if rec.Code != http.StatusFound {
			t.Errorf("got status %d, want a login", rec.Code)
		}
	}
	if _, err := os.Stat(key); err != nil {
		t.Error(err)
	}
	w.load(defaultSite)
	newBrowser(t, w.origin).login("/")
}

// If the key cannot be written, the error page does not show its path.
func TestKeyWriteErrorHidesPath(t *testing.T) {
	for name, text := range map[string]string{
		"module's page": defaultSite,
		"handle_errors": strings.TrimSuffix(strings.TrimSpace(defaultSite), "}") + "\nhandle_errors {\nrespond \"{err.message}\"\n}\n}\n",
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			var c *caddy.Config
			if err := json.Unmarshal(w.config(text), &c); err != nil {
				t.Fatal(err)
			}
			ctx, err := caddy.ProvisionContext(c)
			if err != nil {
				t.Fatal(err)
			}
			app, err := ctx.App("http")
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(os.MkdirAll(w.data, 0o700), os.WriteFile(filepath.Join(w.data, "oauth_session"), nil, 0o600)); err != nil {
				t.Fatal(err)
			}
			for _, server := range app.(*caddyhttp.App).Servers {
				t.Cleanup(func() { cleanUpRoutes(t, server.Routes) })
				r := httptest.NewRequest(http.MethodGet, w.origin+"/", nil)
				r.Header.Set("Accept", "text/html")
				rec := httptest.NewRecorder()
				server.ServeHTTP(rec, r)
				if rec.Code != http.StatusServiceUnavailable || strings.Contains(rec.Body.String(), w.data) || !strings.Contains(rec.Body.String(), "cannot keep sessions") {
					t.Errorf("got status %d, want 503 without a path: %s", rec.Code, rec.Body)
				}
				if got := rec.Header().Get("Cache-Control"); got != "no-store" {
					t.Errorf("got Cache-Control %q, want no-store", got)
				}
			}
		})
	}
}

// cleanUpRoutes releases the handlers of a configuration that was only provisioned.
func cleanUpRoutes(t *testing.T, routes caddyhttp.RouteList) {
	for _, route := range routes {
		for _, handler := range route.Handlers {
			switch h := handler.(type) {
			case *Handler:
				if err := h.Cleanup(); err != nil {
					t.Error(err)
				}
			case *caddyhttp.Subroute:
				cleanUpRoutes(t, h.Routes)
			}
		}
	}
}
