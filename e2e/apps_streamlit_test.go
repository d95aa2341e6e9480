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

const streamlitPort = "127.0.0.1:8501"

// dashboard is a user at the Streamlit app.
type dashboard struct {
	*desk
	count int
}

// ready waits for the app at its beginning, whose parts load one after another.
func (d *dashboard) ready() {
	d.t.Helper()
	d.shows("count is 0")
	d.holds(`document.querySelector('[data-testid="stButton"] button') && document.querySelector('[data-testid="stFileUploader"] input[type=file]')`)
}

// press presses the app's button, which counts. The work goes over the WebSocket alone.
func (d *dashboard) press() {
	d.t.Helper()
	before := d.count
	var again time.Time
	eventually(d.t, fmt.Sprintf("count after %d", before), func() bool {
		if now := time.Now(); now.After(again) {
			d.click() // the app ignores a click while it connects
			again = now.Add(5 * time.Second)
		}
		_, rest, _ := strings.Cut(d.page.Text(d.t), "count is ")
		_, _ = fmt.Sscan(rest, &d.count) // fails while the app connects
		return d.count > before
	})
}

func (d *dashboard) click() {
	d.t.Helper()
	d.page.Press(d.t, `[data-testid="stButton"] button`)
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
	d.example = d.without("stream_token_expiry")
	d.scene("FourTokenLifetimes", func(t *testing.T) {
		d.reloadCaddy(d.example)
		d.open("/")
		d.ready()
		first := d.token()
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
		if token := d.token(); token != first {
			t.Errorf("got token %s, want %s, with which the WebSocket began", token, first)
		}
		if n := d.traffic.Opened("/stream"); n != 1 {
			t.Errorf("got %d WebSockets, want 1", n)
		}
		d.wantNoRefusal()
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
		d.wantNoRefusal()
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
		eventually(t, "end by idle_timeout while the user works", func() bool {
			d.click()
			return d.traffic.Answers("", http.StatusUnauthorized) > d.refused
		})
		d.wantLoginRequired()
		d.reloadCaddy(d.example)
		d.logIn()
		d.awaitOpen("/stream")
		d.hides("Connection failed")
	})
}

// begin starts again in a new page.
func (d *dashboard) begin() {
	d.t.Helper()
	d.reload()
	d.count = 0
	d.ready()
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

// TestAppsStreamlitTokenExpiry shows that stream_token_expiry gives the app fresh tokens, without a word to its user. Each new
// connection is a use of the session.
func TestAppsStreamlitTokenExpiry(t *testing.T) {
	needApps(t)
	d := dashboard{desk: newDesk(t, "streamlit", streamlitPort, apps.Streamlit(t))}
	d.reloadCaddy(d.with(shortIdle))
	d.open("/")
	d.ready()
	d.press()
	first := d.token()
	d.awaitRefreshes(4, func() {})
	d.press()
	if token := d.token(); token == first || d.count != 2 {
		t.Errorf("after four token lifetimes: got count %d and token %s, want 2 and another one", d.count, token)
	}
	d.wantNoRefusal()
	// Connections that are no use let the session become idle.
	d.reloadCaddy(strings.Replace(d.with(shortIdle), "oauth_session {\n", "oauth_session {\nidle_ignore /_stcore/*\n", 1))
	d.reload()
	d.wantLoginRequired()
}
