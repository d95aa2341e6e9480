package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/apps"
	"github.com/oauth-session/caddy-oauth-session/e2e/browser"
)

const noderedPort = "127.0.0.1:1880"

// editor is a user in Node-RED's editor.
type editor struct {
	*desk
}

func (e *editor) ready() {
	e.t.Helper()
	e.holds(`window.RED?.nodes?.node("button") && document.querySelector("#button .red-ui-flow-node-button-button")`)
	e.awaitOpen("/comms")
	browser.Eval[any](e.t, e.page, collectNotices)
	browser.Eval[any](e.t, e.page, `RED.sidebar.show("debug")`)
}

// collectNotices keeps the texts of Node-RED's notices, most of which disappear after some seconds.
const collectNotices = `(() => {
	window.notices = "";
	new MutationObserver(() => {
		for (const notice of document.querySelectorAll(".red-ui-notification")) notices += notice.innerText + "\n";
	}).observe(document.body, { childList: true, subtree: true, characterData: true });
})()`

// notice waits until Node-RED has shown a notice with the text.
func (e *editor) notice(text string) {
	e.t.Helper()
	e.holds(fmt.Sprintf(`notices.includes(%q)`, text))
	e.t.Logf("the user sees: %s", text)
	browser.Eval[any](e.t, e.page, `window.notices = ""`)
}

// press presses the button of the flow. Its message comes back over the WebSocket.
func (e *editor) press() {
	e.t.Helper()
	browser.Eval[any](e.t, e.page, `document.querySelector("#red-ui-sidebar-debug-clear").click()`)
	e.clickButton()
	e.holds(`document.querySelectorAll(".red-ui-debug-msg").length === 1`)
}

func (e *editor) clickButton() {
	e.t.Helper()
	browser.Eval[bool](e.t, e.page, `document.querySelector("#button .red-ui-flow-node-button-button").dispatchEvent(new MouseEvent("click", {bubbles: true}))`)
}

// deploy changes the flow and deploys it.
func (e *editor) deploy() {
	e.t.Helper()
	browser.Eval[any](e.t, e.page, `(RED.nodes.node("shown").changed = true, RED.nodes.dirty(true))`)
	e.holds(`!document.querySelector("#red-ui-header-button-deploy").classList.contains("disabled")`)
	browser.Eval[any](e.t, e.page, `document.querySelector("#red-ui-header-button-deploy").click()`)
}

// TestAppsNodeRED is a day in Node-RED's editor, which works over HTTP and gets its news over a WebSocket.
func TestAppsNodeRED(t *testing.T) {
	needApps(t)
	e := editor{desk: newDesk(t, "node-red", noderedPort, apps.NodeRED(t, false))}
	e.scene("FourTokenLifetimes", func(t *testing.T) {
		e.open("/")
		e.ready()
		e.awaitRefreshes(4, e.press)
		e.deploy()
		e.notice("Successfully deployed")
		if n := e.traffic.Opened("/comms"); n != 1 {
			t.Errorf("got %d WebSockets, want 1 during all refreshes", n)
		}
		e.wantUnauthorized(false)
	})
	e.scene("CaddyReload", func(t *testing.T) {
		e.reloadCaddy(e.example)
		eventually(t, "second WebSocket", func() bool { return e.traffic.Opened("/comms") == 2 })
		e.press()
		e.wantUnauthorized(false)
	})
	e.scene("Logout", func(t *testing.T) {
		e.logOut()
		e.awaitClosed("/comms")
		e.notice("Lost connection to server, reconnecting")
		e.deploy()
		e.notice("Deploy failed: Not authorized")
		e.wantUnauthorized(true)
		e.logIn()
		// The editor waits up to a minute; its link connects at once.
		eventually(t, "connection", func() bool {
			return browser.Eval[bool](t, e.page, `(document.querySelector(".red-ui-notification a")?.click(), false)`) || e.traffic.Open("/comms") > 0
		})
		e.hides("Lost connection")
		e.deploy()
		e.notice("Successfully deployed")
	})
	e.scene("Idle", func(t *testing.T) {
		e.reload()
		e.ready()
		e.reloadCaddy(e.with(shortIdle))
		e.awaitOpen("/comms")
		e.awaitClosed("/comms")
		e.notice("Lost connection to server, reconnecting")
		e.clickButton()
		e.notice("unexpected error (401)")
		e.reload()
		e.ready()
		e.press()
	})
}

// TestAppsNodeREDOwnLogin shows the login of Node-RED itself (adminAuth), whose header the module replaces by default.
func TestAppsNodeREDOwnLogin(t *testing.T) {
	needApps(t)
	e := editor{desk: newDesk(t, "node-red", noderedPort, apps.NodeRED(t, true))}
	logIn := func() {
		e.holds(`document.querySelector("#node-dialog-login-username") && document.querySelector("#node-dialog-login-submit")`)
		browser.Eval[any](e.t, e.page, fmt.Sprintf(`(document.querySelector("#node-dialog-login-username").value = %q, document.querySelector("#node-dialog-login-password").value = %q)`,
			apps.NodeREDUser, apps.NodeREDPassword))
		e.page.MouseClick(e.t, "#node-dialog-login-submit")
	}
	e.scene("Replace", func(t *testing.T) {
		e.reloadCaddy(e.plain())
		e.open("/")
		logIn()
		eventually(t, "refusal of Node-RED's own token", func() bool {
			return e.traffic.Answers("/auth/token", http.StatusOK) == 1 && e.traffic.Answers("/settings", http.StatusUnauthorized) == 2
		})
		e.shows("Username:")
		e.caddy.Process.Await(t, "log line", func(context.Context) bool { return strings.Contains(e.caddy.Log(t), "write `authorization keep`") })
	})
	e.scene("Keep", func(t *testing.T) {
		e.reloadCaddy(e.example)
		browser.Eval[any](t, e.page, `localStorage.clear()`)
		e.reload()
		logIn()
		e.ready()
		e.awaitRefreshes(4, e.press)
		e.deploy()
		e.notice("Successfully deployed")
	})
	e.scene("Logout", func(t *testing.T) {
		e.logOut()
		e.awaitClosed("/comms")
		e.notice("Lost connection to server, reconnecting")
		e.deploy()
		t.Logf("the user sees %s", e.page.Text(t))
	})
}
