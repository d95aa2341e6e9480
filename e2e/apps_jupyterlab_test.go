package e2e

import (
	"fmt"
	"net/http"
	"strings"
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

// polls matches the polls of JupyterLab, together with /lab/api/*, where it keeps the layout of its page.
const polls = "@polls {\n\tmethod GET\n\tpath /api/*\n}\n"

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

// save presses the button that saves the notebook until the server has answered with the status.
func (l *lab) save(status int) {
	l.t.Helper()
	const file = "/api/contents/work.ipynb"
	before := l.traffic.Answers(file, status)
	var again time.Time
	eventually(l.t, fmt.Sprintf("answer with status %d to the notebook", status), func() bool {
		if now := time.Now(); now.After(again) {
			l.closeDialogs()
			l.page.MouseClick(l.t, `.jp-NotebookPanel-toolbar [data-command="docmanager:save"]`)
			again = now.Add(5 * time.Second)
		}
		return l.traffic.Answers(file, status) > before
	})
}

// closeDialogs closes JupyterLab's dialogs, which hide the page. Which of them come depends on what the page did last.
func (l *lab) closeDialogs() {
	l.t.Helper()
	const text = `[...document.querySelectorAll(".jp-Dialog")].map((d) => d.innerText.replaceAll("\n", " ")).join("; ")`
	seen := ""
	eventually(l.t, "page without a dialog", func() bool {
		dialogs := browser.Eval[string](l.t, l.page, text)
		if dialogs == "" {
			return true
		}
		if dialogs != seen {
			seen = dialogs
			l.t.Logf("the user sees: %s", dialogs)
		}
		l.page.MouseClick(l.t, ".jp-Dialog:last-of-type .jp-Dialog-footer button:last-of-type")
		return false
	})
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
		l.wantNoRefusal()
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
		l.run()
		// Caddy closes the WebSocket with code 1001, after which JupyterLab connects no more.
		l.reloadCaddy(l.example)
		l.kernelIs("disconnected")
		l.shows("Python 3 (ipykernel) | Disconnected")
		l.clickRun()
		l.shows("[*]:")
		l.reload()
		l.ready()
		l.run()
		l.wantNoRefusal()
	})
	l.scene("Logout", func(t *testing.T) {
		// The WebSocket belongs to the former configuration, whose stream_close_delay keeps it.
		l.reloadCaddy(l.example)
		l.run()
		l.logOut()
		l.wantLost()
		l.save(http.StatusUnauthorized)
		l.shows("Saving failed")
		l.logIn()
		l.save(http.StatusOK)
		l.shows("Saving completed")
		l.kernelIs("disconnected")
		l.reload()
		l.ready()
		l.run()
	})
	l.scene("TokenExpiry", func(t *testing.T) {
		l.reloadCaddy(l.with("stream_token_expiry close"))
		l.reload()
		l.ready()
		sockets := l.traffic.Opened("/channels")
		eventually(t, "two WebSockets more", func() bool { return l.traffic.Opened("/channels") >= sockets+2 })
		l.run()
		l.wantNoRefusal()
	})
	l.scene("IdleIgnore", func(t *testing.T) {
		sites := strings.Replace(l.with(shortIdle), "oauth_session {\n", polls+"oauth_session {\nidle_ignore @polls\nidle_ignore /lab/api/*\n", 1)
		l.reloadCaddy(sites)
		l.reload()
		l.ready()
		l.run()
		l.wantLost()
		l.reload()
		l.ready()
		l.run()
	})
}

// wantLost waits until the session has ended, and the page shows it.
func (l *lab) wantLost() {
	l.t.Helper()
	l.awaitClosed("/channels")
	l.kernelIs("disconnected")
	l.shows("Python 3 (ipykernel) | Disconnected")
	l.awaitRefusal()
}

// TestAppsJupyterLabSettings shows what a user sees before JupyterLab is set up for the proxy, and JupyterLab below a path.
func TestAppsJupyterLabSettings(t *testing.T) {
	needApps(t)
	for _, c := range []struct {
		name, setting, sees string
		status              int
	}{
		{"without allow_remote_access", "--IdentityProvider.token=", "403 : Forbidden", http.StatusForbidden},
		{"with its own token", "--ServerApp.allow_remote_access=True", "Password or token:", http.StatusOK},
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
	t.Run("below a path", func(t *testing.T) {
		app := apps.JupyterLab(t, map[string]string{"work.ipynb": workCode},
			"--IdentityProvider.token=", "--ServerApp.allow_remote_access=True", "--ServerApp.base_url=/jupyter/")
		l := lab{desk: newDesk(t, "jupyterlab", jupyterPort, app)}
		l.reloadCaddy(block(l.site, "handle /jupyter/* {\n"+protect(l.server, "path_prefix /jupyter/oauth2")+"reverse_proxy "+l.app+"\n}"))
		l.open("/jupyter" + notebook)
		l.ready()
		l.run()
	})
}
