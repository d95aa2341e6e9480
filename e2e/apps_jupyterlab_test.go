package e2e

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/e2e/apps"
	"github.com/oauth-session/caddy-oauth-session/e2e/browser"
)

const (
	jupyterPort  = "127.0.0.1:8888"
	jupyterToken = "jupyter-token-of-the-test"

	// workCode counts its runs in the kernel.
	workCode = "n = globals().get('n', 0) + 1\nprint('run', n)"
	notebook = "/lab/tree/work.ipynb"
)

// lab is a user at a notebook in JupyterLab.
type lab struct {
	*desk
	runs int
}

// ready waits for the notebook and its kernel.
func (l *lab) ready() {
	l.t.Helper()
	l.awaitOpen("/channels")
	l.kernelIs("idle")
	l.holds(`!document.querySelector(".jp-Spinner")`)
}

// kernelIs waits until the notebook shows the kernel's status.
func (l *lab) kernelIs(status string) {
	l.t.Helper()
	l.holds(fmt.Sprintf(`document.querySelector(".jp-Notebook-ExecutionIndicator")?.dataset.status === %q`, status))
}

// run runs the notebook's cell in the kernel, over its WebSocket. The kernel counts the runs.
func (l *lab) run() {
	l.t.Helper()
	before := l.runs
	again := time.Now()
	eventually(l.t, fmt.Sprintf("run after number %d", before), func() bool {
		if now := time.Now(); !now.Before(again) {
			l.clickRun() // JupyterLab ignores a click while it lays out the page
			again = now.Add(5 * time.Second)
		}
		l.runs = browser.Eval[int](l.t, l.page, `Number(document.querySelector(".jp-OutputArea-output")?.innerText.match(/run (\d+)/)?.[1] ?? 0)`)
		return l.runs > before
	})
}

func (l *lab) clickRun() {
	l.t.Helper()
	l.page.MouseClick(l.t, ".jp-Notebook .jp-CodeCell .jp-InputPrompt")
	l.page.MouseClick(l.t, `.jp-NotebookPanel-toolbar [data-command="notebook:run-cell-and-select-next"]`)
}

func (l *lab) save() {
	l.t.Helper()
	l.page.MouseClick(l.t, `.jp-NotebookPanel-toolbar [data-command="docmanager:save"]`)
}

// TestAppsJupyterLab is a day in JupyterLab.
func TestAppsJupyterLab(t *testing.T) {
	needApps(t)
	app := apps.JupyterLab(t, map[string]string{"work.ipynb": workCode}, "--IdentityProvider.token="+jupyterToken, "--ServerApp.allow_remote_access=True")
	l := lab{desk: newDesk(t, "jupyterlab", jupyterPort, app)}
	l.scene("FourTokenLifetimesAndIdle", func(t *testing.T) {
		l.open(notebook)
		l.ready()
		l.run()
		l.reloadCaddy(l.with(shortIdle))
		l.reload()
		l.ready()
		sockets := l.traffic.Opened("/channels")
		// The page polls, so the session stays in use without the user.
		l.awaitRefreshes(4, func() {})
		l.run()
		if n := l.traffic.Opened("/channels"); n != sockets {
			t.Errorf("got %d WebSockets, want no more than %d", n, sockets)
		}
		l.wantUnauthorized(false)
	})
	l.scene("CaddyReload", func(t *testing.T) {
		sockets := l.traffic.Opened("/channels")
		l.reloadCaddy(l.without("stream_close_delay"))
		l.run()
		if n := l.traffic.Opened("/channels"); n != sockets {
			t.Errorf("with stream_close_delay: got %d WebSockets, want no more than %d", n, sockets)
		}
		l.reload()
		l.ready()
		l.reloadCaddy(l.example)
		l.kernelIs("disconnected")
		l.shows("Python 3 (ipykernel) | Disconnected")
		l.clickRun()
		t.Logf("the user sees %s", l.page.Text(t))
		l.reload()
		l.ready()
		t.Logf("after reload the user sees %s", l.page.Text(t))
		l.run()
	})
	l.scene("Logout", func(t *testing.T) {
		l.logOut()
		l.awaitClosed("/channels")
		l.kernelIs("disconnected")
		t.Logf("the user sees %s", l.page.Text(t))
		eventually(t, "401", func() bool { return l.traffic.Answers("/", http.StatusUnauthorized) > 5 })
		t.Logf("the user sees %s", l.page.Text(t))
		l.clickRun()
		l.save()
		eventually(t, "401", func() bool { return l.traffic.Answers("/api/contents", http.StatusUnauthorized) > 0 })
		t.Logf("the user sees %s", l.page.Text(t))
		l.logIn()
		eventually(t, "success", func() bool {
			return browser.Eval[bool](t, l.page, `document.querySelector(".jp-Notebook-ExecutionIndicator")?.dataset.status === "idle"`) || l.traffic.Open("/channels") > 0
		})
		t.Logf("after login the user sees %s", l.page.Text(t))
	})
}

// TestAppsJupyterLabSettings shows what a user sees before JupyterLab is set up for the proxy.
func TestAppsJupyterLabSettings(t *testing.T) {
	needApps(t)
	for _, c := range []struct {
		name, setting, sees string
		status              int
	}{
		{"no allow_remote_access", "--IdentityProvider.token=", "403 : Forbidden", http.StatusForbidden},
		{"JupyterLab's own token", "--ServerApp.allow_remote_access=True", "Password or token:", http.StatusOK},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newDesk(t, "jupyterlab", jupyterPort, apps.JupyterLab(t, nil, c.setting))
			l.reloadCaddy(l.plain())
			if doc := l.page.Open(t, l.site+"/lab"); doc.Status != c.status {
				t.Errorf("got %+v, want status %d", doc, c.status)
			}
			l.shows(c.sees)
		})
	}
}
