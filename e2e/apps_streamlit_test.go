package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/apps"
	"github.com/oauth-session/caddy-oauth-session/e2e/browser"
)

const streamlitPort = "127.0.0.1:8501"

// dashboard is a user at the Streamlit app.
type dashboard struct {
	*desk
	count int
}

// press presses the app's button. It works over the WebSocket alone.
func (d *dashboard) press() {
	d.t.Helper()
	d.count++
	d.click()
	eventually(d.t, fmt.Sprintf("count %d", d.count), func() bool { return strings.Contains(d.page.Text(d.t), fmt.Sprintf("count is %d\n", d.count)) })
}

func (d *dashboard) click() {
	d.t.Helper()
	d.page.MouseClick(d.t, `[data-testid="stButton"] button`)
}

// token returns the token that the app shows.
func (d *dashboard) token() string {
	d.t.Helper()
	_, rest, _ := strings.Cut(d.page.Text(d.t), "token is Bearer ")
	token, _, _ := strings.Cut(rest, "\n")
	if token == "" {
		d.t.Fatalf("got no token, want one: %s", d.page.Text(d.t))
	}
	return token
}

// uploadFile uploads a file with the app's form.
const uploadFile = `(() => {
	const input = document.querySelector('[data-testid="stFileUploader"] input[type=file]');
	const files = new DataTransfer();
	files.items.add(new File(["twelve bytes"], "small.txt", { type: "text/plain" }));
	input.files = files.files;
	input.dispatchEvent(new Event("change", { bubbles: true }));
	return true;
})()`

// TestAppsStreamlit is a day in a Streamlit app, which works over one WebSocket.
func TestAppsStreamlit(t *testing.T) {
	needApps(t)
	d := dashboard{desk: newDesk(t, "streamlit", streamlitPort, apps.Streamlit(t))}
	d.scene("FourTokenLifetimes", func(t *testing.T) {
		d.open("/")
		d.shows("count is 0")
		first := d.token()
		before := d.refreshes()
		d.press()
		// Work in the app alone refreshes nothing. Requests of another tab do.
		tab := d.browser.NewPage(t)
		tab.Open(t, d.site+"/_stcore/health")
		d.awaitRefreshes(4, func() {
			if r := tab.Fetch(t, "/_stcore/health", browser.Request{}); r.Status != http.StatusOK {
				t.Errorf("the other tab: got %+v, want 200", r)
			}
		})
		d.page.Front(t)
		d.press()
		t.Logf("%d refreshes, of which the app sees none", d.refreshes()-before)
		if token := d.token(); token != first {
			t.Errorf("got token %s, want %s, with which the WebSocket began", token, first)
		}
		if n := d.traffic.Opened("/stream"); n != 1 {
			t.Errorf("got %d WebSockets, want 1", n)
		}
		d.wantUnauthorized(false)
	})
	d.scene("Upload", func(t *testing.T) {
		browser.Eval[bool](t, d.page, uploadFile)
		d.shows("file has 12 bytes")
	})
	d.scene("CaddyReload", func(t *testing.T) {
		former := d.token()
		d.reloadCaddy(d.example)
		eventually(t, "second WebSocket", func() bool { return d.traffic.Opened("/stream") == 2 })
		d.press()
		if token := d.token(); token == former {
			t.Error("after the reload: got the former token, want a new one")
		}
		d.wantUnauthorized(false)
	})
	d.scene("Logout", func(t *testing.T) {
		d.begin()
		d.logOut()
		d.wantLoginRequired()
		d.logIn()
		d.wantReconnected()
	})
	d.scene("Idle", func(t *testing.T) {
		d.begin()
		d.reloadCaddy(d.with(shortIdle))
		refused := d.traffic.Answers("", http.StatusUnauthorized)
		eventually(t, "end by idle_timeout while the user works", func() bool {
			d.click()
			return d.traffic.Answers("", http.StatusUnauthorized) > refused
		})
		d.wantLoginRequired()
		d.reloadCaddy(d.example)
		d.logIn()
		d.awaitOpen("/stream")
		d.hides("Connection failed")
	})
}

// begin begins anew in a new page.
func (d *dashboard) begin() {
	d.t.Helper()
	d.reload()
	d.count = 0
	d.shows("count is 0")
	d.press()
}

// wantLoginRequired waits until the app shows the answer of the module.
func (d *dashboard) wantLoginRequired() {
	d.t.Helper()
	d.awaitClosed("/stream")
	d.shows("CONNECTING")
	d.shows("Connection error")
	d.shows("Connection failed with status 401")
	d.shows("Open login_url in the browser window")
}

// wantReconnected waits until the app works again as it was left.
func (d *dashboard) wantReconnected() {
	d.t.Helper()
	d.awaitOpen("/stream")
	d.hides("Connection failed")
	d.press()
}

// TestAppsStreamlitTokenExpiry shows that stream_token_expiry gives the app fresh tokens, without a word to its user.
func TestAppsStreamlitTokenExpiry(t *testing.T) {
	needApps(t)
	d := dashboard{desk: newDesk(t, "streamlit", streamlitPort, apps.Streamlit(t))}
	d.reloadCaddy(d.with("stream_token_expiry close"))
	d.open("/")
	d.shows("count is 0")
	first := d.token()
	d.awaitRefreshes(4, func() {})
	d.press()
	if token := d.token(); token == first {
		t.Error("after four token lifetimes: got the first token, want a fresh one")
	}
	d.wantUnauthorized(false)
}
