package conformance

import (
	"net/http"
	"net/url"
	"strings"
)

// frontchannelPlan is the plan for front-channel logout.
var frontchannelPlan = plan{name: "oidcc-client-front-channel-logout-rp-basic", options: "frontchannel_logout", modules: []module{
	{name: "oidcc-client-test-rp-frontchannel-rpinitlogout", server: "a frame with `iss` and `sid`", end: sessionsEnded, act: logOutByFrame},
}}

// logOutByFrame logs in, and a frame of the server's page loads the logout address (OpenID Connect Front-Channel Logout 1.0,
// section 2).
func logOutByFrame(r *run) {
	page := r.visit(r.site + "/wanted")
	r.wantApp(page)
	q := url.Values{"iss": {r.as.URL}, "sid": {r.sid(page)}}
	req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, r.site+"/oauth2/frontchannel_logout?"+q.Encode(), nil)
	if err != nil {
		r.Fatal(err)
	}
	req.Header.Set("Sec-Fetch-Site", "cross-site")
	req.Header.Set("Sec-Fetch-Mode", "navigate")
	req.Header.Set("Sec-Fetch-Dest", "iframe")
	frame, err := r.browser.Do(req)
	if err != nil {
		r.Fatal(err)
	}
	if policy := frame.Header.Get("Content-Security-Policy"); frame.Status != http.StatusOK || !strings.Contains(policy, "frame-ancestors "+r.as.URL) {
		r.Errorf("got %v with policy %q, want 200 and a page that the server may frame", frame, policy)
	}
	if next := r.api(); next.Status != http.StatusUnauthorized {
		r.Errorf("after the logout: got %v, want 401", next)
	}
}
