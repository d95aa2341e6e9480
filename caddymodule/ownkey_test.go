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

// listFiles lists everything in a directory that may be missing.
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

// Key, file and their directory are made by the process that runs the
// configuration, as its user: what only looks at a configuration makes nothing.
func TestOnlyStartCreatesFiles(t *testing.T) {
	w := newWorld(t)
	if err := w.validate(defaultSite); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"after us":  defaultSite + "http://b.localhost:{$PORT} {\noauth_session {\nissuer {$ISSUER}\nclient_id b\ntrusted_ca /nonexistent/ca.pem\n}\n}\n",
		"before us": "http://a.localhost:{$PORT} {\noauth_session {\nissuer {$ISSUER}\nclient_id b\ncookie {\nname wrong\n}\n}\n}\n" + defaultSite,
	} {
		if err := w.tryLoad(bad); err == nil {
			t.Fatalf("a configuration that is wrong %s was loaded", name)
		}
	}
	if found := listFiles(t, filepath.Join(w.data, "oauth_session")); found != nil {
		t.Errorf("without a start there are %q", found)
	}
	if _, err := os.Stat(filepath.Join(w.data, "oauth_session")); !os.IsNotExist(err) {
		t.Errorf("the directory is there (%v)", err)
	}
	w.load(defaultSite)
	newBrowser(t, w.origin).login("/")
	if _, err := os.Stat(filepath.Join(w.data, "oauth_session", "key")); err != nil {
		t.Error(err)
	}
}

// Validating beside a Caddy at work changes neither its key nor its store, and a
// key that cannot be used is found.
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
		t.Errorf("files are %q, were %q", after, before)
	}
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	w.load(defaultSite)
	if a := b.open("/"); a.status != http.StatusOK {
		t.Errorf("status %d after a restart, want 200", a.status)
	}
	if err := os.WriteFile(filepath.Join(w.data, "oauth_session", "key"), []byte("changeme\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := w.validate(defaultSite); err == nil || !strings.Contains(err.Error(), "oauth_session/key") || strings.Contains(err.Error(), "changeme") {
		t.Errorf("error %v, want one that names the file and not what is in it", err)
	}
}

// Two processes that start at a time end up with one key.
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
				t.Errorf("what site %d sealed does not open at site %d", i, j)
			}
		}
	}
}

// Caddy may take requests before it starts the app that makes the key: none is
// answered with a key that is not in the file.
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
		t.Fatalf("provisioning made the key (%v)", err)
	}
	for _, server := range app.(*caddyhttp.App).Servers {
		t.Cleanup(func() { cleanUpRoutes(t, server.Routes) })
		r := httptest.NewRequest(http.MethodGet, w.origin+"/", nil)
		r.Header.Set("Accept", "text/html")
		rec := httptest.NewRecorder()
		server.ServeHTTP(rec, r)
		if rec.Code != http.StatusFound {
			t.Errorf("status %d, want a login", rec.Code)
		}
	}
	if _, err := os.Stat(key); err != nil {
		t.Error(err)
	}
	w.load(defaultSite)
	newBrowser(t, w.origin).login("/")
}

// If the key cannot be written, a page does not say where it should have been.
func TestKeyWriteErrorHidesPath(t *testing.T) {
	for name, text := range map[string]string{
		"our page":      defaultSite,
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
				if rec.Code != http.StatusServiceUnavailable || strings.Contains(rec.Body.String(), w.data) || !strings.Contains(rec.Body.String(), "cannot be kept") {
					t.Errorf("status %d: %s", rec.Code, rec.Body)
				}
				if got := rec.Header().Get("Cache-Control"); got != "no-store" {
					t.Errorf("Cache-Control %q", got)
				}
			}
		})
	}
}

// cleanUp releases the handlers of a configuration that was only provisioned.
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
