package op

import (
	"context"
	"html/template"
	"net/http"
	"net/url"
)

// hydraLogin is the login page. Its form sends the login challenge back.
var hydraLogin = template.Must(template.New("").Parse(`<!doctype html><title>Log in</title>
<form method="post"><input type="hidden" name="login_challenge" value="{{.}}"><input name="user"><button>Log in</button></form>`))

// hydraPages are the pages of Hydra's users, which Hydra expects from its operator: a login form for any user, a consent
// and a logout without a question. Hydra redirects the browser there with a challenge, and learns the decision at its
// admin API.
func hydraPages(adminURL string) http.Handler {
	p := pages{adminURL + "/oauth2/auth/requests/"}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /login", p.login)
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		p.decide(w, r, "login", map[string]any{"subject": r.PostFormValue("user"), "remember": true, "remember_for": 3600})
	})
	mux.HandleFunc("GET /consent", p.consent)
	mux.HandleFunc("GET /logout", func(w http.ResponseWriter, r *http.Request) { p.decide(w, r, "logout", struct{}{}) })
	mux.HandleFunc("GET /signed-out", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /error", func(w http.ResponseWriter, r *http.Request) { http.Error(w, r.URL.RawQuery, http.StatusBadRequest) })
	return mux
}

type pages struct {
	requests string // URL of the pending requests at the admin API
}

// A hydraRequest is a pending request of a user.
type hydraRequest struct {
	Skip              bool     `json:"skip"` // the user is logged in already
	Subject           string   `json:"subject"`
	RequestedScope    []string `json:"requested_scope"`
	RequestedAudience []string `json:"requested_access_token_audience"`
}

func (p pages) login(w http.ResponseWriter, r *http.Request) {
	request, err := p.pending(r.Context(), r, "login")
	switch {
	case err != nil:
		http.Error(w, err.Error(), http.StatusBadGateway)
	case request.Skip:
		p.decide(w, r, "login", map[string]any{"subject": request.Subject})
	default:
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_ = hydraLogin.Execute(w, r.FormValue("login_challenge")) // fails only if the browser has gone
	}
}

func (p pages) consent(w http.ResponseWriter, r *http.Request) {
	request, err := p.pending(r.Context(), r, "consent")
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	p.decide(w, r, "consent", map[string]any{
		"grant_scope": request.RequestedScope, "grant_access_token_audience": request.RequestedAudience,
		"session": map[string]any{"id_token": map[string]any{"email": request.Subject + "@example.test"}},
	})
}

func (p pages) pending(ctx context.Context, r *http.Request, kind string) (request hydraRequest, err error) {
	err = callJSON(ctx, http.MethodGet, p.requests+kind+"?"+challenge(r, kind), nil, &request)
	return request, err
}

// decide accepts the request with the details, and redirects the browser to the next step at Hydra.
func (p pages) decide(w http.ResponseWriter, r *http.Request, kind string, details any) {
	var next struct {
		RedirectTo string `json:"redirect_to"`
	}
	if err := callJSON(r.Context(), http.MethodPut, p.requests+kind+"/accept?"+challenge(r, kind), details, &next); err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	http.Redirect(w, r, next.RedirectTo, http.StatusFound)
}

func challenge(r *http.Request, kind string) string {
	name := kind + "_challenge"
	return url.Values{name: {r.FormValue(name)}}.Encode()
}
