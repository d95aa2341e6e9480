package security

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/client"
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// A parServer accepts pushed authorization requests (RFC 9126) in front of an
// authorization server that does not support them.
type parServer struct {
	url    string
	target *fakeas.Server

	mu     sync.Mutex
	answer func(w http.ResponseWriter) // replaces the valid answer
	pushed []pushedRequest
	open   map[string]url.Values // by request_uri
}

type pushedRequest struct {
	method, user string
	basic        bool
	query, form  url.Values
}

func startPARServer(t *testing.T, target *fakeas.Server) *parServer {
	t.Helper()
	p := &parServer{target: target, open: map[string]url.Values{}}
	mux := http.NewServeMux()
	mux.HandleFunc("/par", p.push)
	mux.HandleFunc("/authorize", p.authorize)
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	p.url = server.URL
	return p
}

func (p *parServer) push(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.ParseForm() != nil {
		http.Error(w, "no form", http.StatusBadRequest)
		return
	}
	seen := pushedRequest{method: r.Method, query: r.URL.Query(), form: r.PostForm}
	seen.user, _, seen.basic = r.BasicAuth()
	p.pushed = append(p.pushed, seen)
	if p.answer != nil {
		p.answer(w)
		return
	}
	uri := canary("urn:ietf:params:oauth:request_uri:", 32)
	p.open[uri] = r.PostForm
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(map[string]any{"request_uri": uri, "expires_in": 60})
}

// authorize redirects the browser to the target with the pushed parameters, once per
// request_uri.
func (p *parServer) authorize(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	form, ok := p.open[r.FormValue("request_uri")]
	delete(p.open, r.FormValue("request_uri"))
	if !ok || r.FormValue("client_id") != form.Get("client_id") {
		http.Error(w, "this request_uri is not known any more", http.StatusBadRequest)
		return
	}
	http.Redirect(w, r, p.target.URL+"/authorize?"+form.Encode(), http.StatusFound)
}

func (p *parServer) requests() []pushedRequest {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.pushed)
}

func (p *parServer) setAnswer(f func(w http.ResponseWriter)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer = f
}

// TestS126PushedRequestsDoNotFallBack: with pushed authorization requests the browser
// carries only a request_uri, and each is used once. If pushing fails, the site does not
// put the parameters in the URL.
func TestS126PushedRequestsDoNotFallBack(t *testing.T) {
	w := shared(t)
	configured := &variant{name: "par-configured", idp: fakeas.Start(t, fakeas.Options{})}
	required := &variant{name: "par-required", idp: fakeas.Start(t, fakeas.Options{})}
	pushers := map[*variant]*parServer{}
	for _, v := range []*variant{configured, required} {
		p := startPARServer(t, v.idp)
		pushers[v] = p
		v.idp.Set(func(k *fakeas.Knobs) {
			k.SigningAlg = "ES256"
			k.Metadata.Set = map[string]any{"authorization_endpoint": p.url + "/authorize"}
			if v == required {
				k.Metadata.Set["pushed_authorization_request_endpoint"] = p.url + "/par"
				k.Metadata.Set["require_pushed_authorization_requests"] = true
			}
		})
	}
	configured.options = "pushed_authorization_request_endpoint " + pushers[configured].url + "/par"
	// The metadata requires pushing but names no endpoint for it.
	nowhere := &variant{name: "par-nowhere", idp: fakeas.Start(t, fakeas.Options{})}
	nowhere.idp.Set(func(k *fakeas.Knobs) {
		k.SigningAlg, k.Metadata.Set = "ES256", map[string]any{"require_pushed_authorization_requests": true}
	})
	w.addVariants(t, configured, required, nowhere)
	for v, p := range pushers {
		t.Run(v.name, func(t *testing.T) { p.test(t, v) })
	}
	t.Run("nowhere to push to", func(t *testing.T) { checkNoFallback(t, w.browser().nav(t, nowhere.url+"/x")) })
}

func (p *parServer) test(t *testing.T, v *variant) {
	w := v.w
	v.login(t, w.browser(), "u")
	b := w.browser()
	first, second := b.nav(t, v.url+"/x").Location(), b.nav(t, v.url+"/x").Location()
	if first == nil || second == nil {
		t.Fatal("no login started")
	}
	for _, to := range []*url.URL{first, second} {
		q := to.Query()
		if !strings.HasPrefix(to.String(), p.url+"/authorize?") || len(q) != 2 || q.Get("client_id") != clientID || q.Get("request_uri") == "" {
			t.Errorf("got redirect to %s, want only client_id and request_uri", to)
		}
	}
	if first.Query().Get("request_uri") == second.Query().Get("request_uri") {
		t.Error("two logins have the same request_uri")
	}
	for _, r := range p.requests() {
		challenge := r.form.Get("code_challenge_method") == "S256" && len(r.form.Get("code_challenge")) == 43
		if r.method != http.MethodPost || !r.basic || r.user != clientID || r.form.Has("request_uri") || r.form.Has("client_secret") ||
			len(r.query) > 0 || !challenge || r.form.Get("redirect_uri") != v.url+callback || r.form.Get("state") == "" || r.form.Get("nonce") == "" {
			t.Errorf("got pushed request %s, Basic %v, %q", r.method, r.basic, r.form)
		}
	}
	// The back button leads to the used request_uri; a new login pushes a new request.
	if page, err := b.Visit(t.Context(), first.String()); err != nil || page.Status != http.StatusOK {
		t.Errorf("login: got %v, %v, want 200", page, err)
	}
	if page, err := b.Visit(t.Context(), first.String()); err != nil || page.Status != http.StatusBadRequest {
		t.Errorf("second use of the request_uri: got %v, %v, want 400", page, err)
	}
	v.login(t, w.browser(), "u")
	for name, answer := range map[string]func(http.ResponseWriter){
		"400": func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = w.Write([]byte(`{"error":"invalid_request"}`))
		},
		"503": func(w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) },
		"no request_uri": func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusCreated)
			_, _ = w.Write([]byte(`{"expires_in":60}`))
		},
		"HTML": func(w http.ResponseWriter) { _, _ = w.Write([]byte("<html>")) },
		"redirect": func(rw http.ResponseWriter) {
			rw.Header().Set("Location", w.attacker.URL)
			rw.WriteHeader(http.StatusTemporaryRedirect)
		},
		"lost": func(http.ResponseWriter) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			p.setAnswer(answer)
			defer p.setAnswer(nil)
			checkNoFallback(t, w.browser().nav(t, v.url+"/x"))
		})
	}
}

func checkNoFallback(t *testing.T, resp *client.Response) {
	t.Helper()
	if resp.Status != http.StatusServiceUnavailable && resp.Status != http.StatusBadGateway || resp.Header.Get("Location") != "" {
		t.Errorf("got %v to %q, want 502 or 503", resp, resp.Header.Get("Location"))
	}
}
