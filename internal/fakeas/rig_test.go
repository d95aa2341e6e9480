package fakeas

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

const (
	callbackURI = "https://app.test/oauth2/callback"
	verifier    = "0123456789012345678901234567890123456789012"
)

// rig is a server with a client that verifies nothing, over a socket or without
// one.
type rig struct {
	t      *testing.T
	as     *Server
	http   *http.Client
	client Client
}

var basicClient = Client{
	ID: "app", Secret: "s3cret", RedirectURIs: []string{callbackURI},
	PostLogoutRedirectURIs: []string{"https://app.test/bye"},
}

// newRig starts a server without a socket.
func newRig(t *testing.T, knobs ...func(*Knobs)) *rig {
	t.Helper()
	as := New(Options{URL: "https://as.test", Clients: []Client{basicClient}})
	t.Cleanup(as.Close)
	for _, f := range knobs {
		as.Set(f)
	}
	return &rig{t: t, as: as, client: basicClient, http: noRedirects(Transport(as))}
}

// newSocketRig starts a server on a TCP port.
func newSocketRig(t *testing.T) *rig {
	t.Helper()
	as := Start(t, Options{Clients: []Client{basicClient}})
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &rig{t: t, as: as, client: basicClient, http: noRedirects(transport)}
}

func noRedirects(rt http.RoundTripper) *http.Client {
	return &http.Client{Transport: rt, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// result is an answer. json is nil unless the body is a JSON object.
type result struct {
	status int
	header http.Header
	body   string
	json   map[string]any
	err    error
}

func (r result) text(name string) string { s, _ := r.json[name].(string); return s }

func (g *rig) do(req *http.Request, err error) result {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
	resp, err := g.http.Do(req)
	if err != nil {
		return result{err: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	r := result{status: resp.StatusCode, header: resp.Header, body: string(body), err: err}
	_ = json.Unmarshal(body, &r.json) // not every answer is JSON
	return r
}

func (g *rig) get(path string) result {
	g.t.Helper()
	return g.do(http.NewRequest(http.MethodGet, g.as.URL+path, nil))
}

func (g *rig) post(path string, form url.Values, auth func(*http.Request)) result {
	g.t.Helper()
	req, err := http.NewRequest(http.MethodPost, g.as.URL+path, strings.NewReader(form.Encode()))
	if err == nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if auth != nil {
			auth(req)
		}
	}
	return g.do(req, err)
}

func (g *rig) bearer(path, token string) result {
	g.t.Helper()
	req, err := http.NewRequest(http.MethodGet, g.as.URL+path, nil)
	if err == nil {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return g.do(req, err)
}

// auth authenticates as the rig's client by client_secret_basic.
func (g *rig) auth(req *http.Request) {
	req.SetBasicAuth(url.QueryEscape(g.client.ID), url.QueryEscape(g.client.Secret))
}

// request returns the parameters of a valid authorization request. params are
// names and values that replace them; the value "-" removes a parameter.
func (g *rig) request(params ...string) url.Values {
	sum := sha256.Sum256([]byte(verifier))
	v := url.Values{
		"response_type": {"code"}, "client_id": {g.client.ID}, "redirect_uri": {callbackURI},
		"scope": {"openid offline_access"}, "state": {"st&te"}, "nonce": {"n0nce"},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"},
	}
	for i := 0; i < len(params); i += 2 {
		if v.Set(params[i], params[i+1]); params[i+1] == "-" {
			v.Del(params[i])
		}
	}
	return v
}

// authorize sends an authorization request and returns the parameters of the
// callback.
func (g *rig) authorize(params ...string) url.Values {
	g.t.Helper()
	r := g.get("/authorize?" + g.request(params...).Encode())
	u, err := url.Parse(r.header.Get("Location"))
	if r.err != nil || err != nil || r.status != http.StatusFound {
		g.t.Fatalf("authorize: got status %d and errors %v and %v, want a redirect: %s", r.status, r.err, err, r.body)
	}
	return u.Query()
}

func (g *rig) redeem(code string) result {
	g.t.Helper()
	return g.post("/token", url.Values{
		"grant_type": {GrantCode}, "code": {code}, "redirect_uri": {callbackURI}, "code_verifier": {verifier},
	}, g.auth)
}

// login returns the token answer of a login.
func (g *rig) login(params ...string) result {
	g.t.Helper()
	r := g.redeem(g.authorize(params...).Get("code"))
	if r.err != nil || r.status != http.StatusOK {
		g.t.Fatalf("login: got status %d and error %v, want 200: %s", r.status, r.err, r.body)
	}
	return r
}

func (g *rig) refresh(token string, params ...string) result {
	g.t.Helper()
	form := url.Values{"grant_type": {GrantRefresh}, "refresh_token": {token}}
	for i := 0; i < len(params); i += 2 {
		form.Set(params[i], params[i+1])
	}
	return g.post("/token", form, g.auth)
}

func (g *rig) wantRefreshed(token string, params ...string) result {
	g.t.Helper()
	r := g.refresh(token, params...)
	if r.err != nil || r.status != http.StatusOK || r.text("access_token") == "" {
		g.t.Fatalf("refresh: got status %d and error %v, want 200 and an access token: %s", r.status, r.err, r.body)
	}
	return r
}

func (g *rig) wantError(r result, status int, code string) {
	g.t.Helper()
	if r.err != nil || r.status != status || r.text("error") != code {
		g.t.Fatalf("got status %d and error %v, want %d %s: %s", r.status, r.err, status, code, r.body)
	}
}

func (g *rig) valid(token string) bool {
	_, ok := g.as.ValidAccessToken(token)
	return ok
}
