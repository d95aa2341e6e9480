package handler

import (
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/oauth-session/caddy-oauth-session/oauth"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// prompts has the values of `prompt` that a link to the login may use (OpenID
// Connect Core, section 3.1.2.1).
var prompts = map[string]bool{"": true, "none": true, "login": true, "consent": true, "select_account": true}

// serveLogin begins a login for a link of the app or of one of the Handler's pages.
func (h *Handler) serveLogin(w http.ResponseWriter, r *http.Request) error {
	if !isNavigation(r) {
		return h.unauthenticated(w, r)
	}
	origin, failure := h.origin(r)
	if failure != nil {
		return h.fail(w, r, failure)
	}
	q, err := singleParams(h.OriginalURL(r).RawQuery, "return_to", "prompt", "login_hint", "iss")
	if err != nil {
		return h.fail(w, r, badRequest(err))
	}
	if !prompts[q["prompt"]] || len(q["login_hint"]) > 256 {
		return h.fail(w, r, badRequest(errors.New("prompt or login_hint is not valid")))
	}
	// A third party that begins a login names the server with iss (OpenID Connect
	// Core, section 4). This site has only one server.
	if iss := q["iss"]; iss != "" && h.Client.CheckIssuer(r.Context(), []string{iss}) != nil {
		return h.fail(w, r, badRequest(errors.New("the parameter iss names another authorization server")))
	}
	return h.startLogin(w, r, loginRequest{
		returnTo: h.returnToPath(q["return_to"], origin), explicit: !isCrossSiteNavigation(r),
		prompt: q["prompt"], hint: q["login_hint"],
	})
}

// isCrossSiteNavigation reports whether a page of another site led to this request.
// Such a link begins a login for a browser without a session, but must not replace
// an existing session (login CSRF).
func isCrossSiteNavigation(r *http.Request) bool {
	site := r.Header.Get("Sec-Fetch-Site")
	return site == "cross-site" || site == "same-site"
}

// loginRequest has the parameters of one login attempt.
type loginRequest struct {
	returnTo string // the path to which the login leads
	explicit bool   // it began at the login endpoint, by the user or the app
	restarts int    // automatic restarts before this attempt
	ended    bool   // this request has found the end of the session
	prompt   string
	hint     string
}

// startLogin redirects the browser to the authorization server. It stores the
// attempt in a cookie, and nothing on the server.
func (h *Handler) startLogin(w http.ResponseWriter, r *http.Request, l loginRequest) error {
	beginAnswer(w, r)
	origin, failure := h.origin(r)
	if failure != nil {
		return h.fail(w, r, failure)
	}
	c := h.readCookies(r)
	landings, failure := h.landingsBefore(r, &c, l)
	if failure != nil {
		h.clearLoopCount(w, &c)
		return h.fail(w, r, failure)
	}
	// Do not begin a login whose session cannot be stored: the code would be spent,
	// and the user would end on an error page.
	if err := h.Keeper.CanKeep(r.Context()); err != nil {
		return h.fail(w, r, storeUnavailable(err, l.returnTo))
	}
	state, err := h.sealState(loginState{ReturnTo: l.returnTo, Restarts: l.restarts})
	if err != nil {
		return h.fail(w, r, sealingFailed(err, l.returnTo))
	}
	a := loginAttempt{State: hashState(state), Verifier: randomText(32), ReturnTo: l.returnTo, Explicit: l.explicit, Begun: time.Now()}
	if h.Client.OpenID() {
		a.Nonce = randomText(32)
	}
	if landings.Landings > 0 {
		a.Completed, a.LoopSince = landings.Landings, time.Unix(landings.Since, 0)
	}
	target, err := h.Client.AuthorizationURL(r.Context(), oauth.AuthorizationRequest{
		RedirectURI: h.redirectURI(origin), State: state, Nonce: a.Nonce, Verifier: a.Verifier,
		Prompt: l.prompt, LoginHint: l.hint,
	})
	if err != nil {
		failure := serverFailure(err, l.returnTo)
		if failure == nil {
			failure = loginUnavailable(err, l.returnTo)
		}
		return h.fail(w, r, failure)
	}
	if err := h.setLoginAttempt(w, &c, loginCookieName(state), a); err != nil {
		return h.fail(w, r, sealingFailed(err, l.returnTo))
	}
	w.Header().Set("Location", target)
	w.WriteHeader(http.StatusFound)
	return nil
}

// sealingFailed answers a login whose state or cookie could not be sealed. A new
// instance may not know yet which of its keys the other instances have; that is
// temporary.
func sealingFailed(err error, returnTo string) *Error {
	if errors.Is(err, seal.ErrNotAgreed) || errors.Is(err, seal.ErrNoKeys) {
		return storeUnavailable(err, returnTo)
	}
	return internalError(err)
}

// hasSession reports whether the browser's session is alive. It reports false if
// the store does not answer.
func (h *Handler) hasSession(r *http.Request, c *cookies) bool {
	if !c.valid {
		return false
	}
	_, err := h.Keeper.Peek(r.Context(), c.secret)
	return err == nil
}

func (h *Handler) redirectURI(origin string) string { return origin + h.PathPrefix + callbackPath }

// unauthenticated answers a request without a session. A navigation is redirected
// to the login; any other request gets 401 with the URL of the login.
func (h *Handler) unauthenticated(w http.ResponseWriter, r *http.Request) error {
	if isNavigation(r) {
		if h.Cookie.sameSite == http.SameSiteStrictMode && r.Header.Get("Sec-Fetch-Site") == "cross-site" {
			return h.reloadForStrictCookie(w, r)
		}
		return h.startLogin(w, r, loginRequest{returnTo: h.originalRequestURI(r)})
	}
	// Every 401 needs a challenge (RFC 9110, section 15.5.2).
	w.Header().Set("WWW-Authenticate", `Bearer realm="oauth_session"`)
	e := &Error{
		Status: http.StatusUnauthorized, Code: "login_required", Title: "Login required",
		Detail: "There is no session. Open login_url in the browser window.",
	}
	switch kindOf(r) {
	case formRequest:
		e.Title, e.Detail = "Please sign in again", "Your session has ended, and what you sent was not passed on."
		e.Retry = h.refererPath(r)
	case pageRequest:
		// The answer is a part of a page, such as a frame. After the login the
		// browser needs the whole page.
		e.Title, e.Detail = "Please sign in", "You are not signed in, or your session has ended."
		e.Retry = h.refererPath(r)
	}
	return h.fail(w, r, e)
}

// reloadForStrictCookie answers a navigation from another site. The browser does not
// send a cookie with SameSite=Strict with it, but does when a page of this site
// navigates to the same URL.
func (h *Handler) reloadForStrictCookie(w http.ResponseWriter, r *http.Request) error {
	beginAnswer(w, r)
	return h.redirectAfterLogin(w, r, h.originalRequestURI(r))
}

// redirectAfterLogin sends the browser to a page of this site. A redirect that began
// at the authorization server is cross-site, and carries no cookie with
// SameSite=Strict. With such cookies a small page navigates instead.
func (h *Handler) redirectAfterLogin(w http.ResponseWriter, r *http.Request, path string) error {
	origin, failure := h.origin(r)
	if failure != nil {
		return h.fail(w, r, failure)
	}
	target := origin + path
	if h.Cookie.sameSite == http.SameSiteStrictMode {
		return writePage(w, r, http.StatusOK, page{Title: "Signed in", Detail: "Taking you to the page you asked for.", RefreshTo: target, Link: target, LinkText: "Continue"})
	}
	w.Header().Set("Location", target)
	w.WriteHeader(http.StatusSeeOther)
	return nil
}

// singleParams reads parameters that must not be repeated. Two servers may read a
// repeated parameter differently, which an attacker could use.
func singleParams(rawQuery string, names ...string) (map[string]string, error) {
	q, err := url.ParseQuery(rawQuery)
	if err != nil {
		return nil, errors.New("the query is not valid")
	}
	single := make(map[string]string, len(names))
	for _, name := range names {
		if len(q[name]) > 1 {
			return nil, errors.New("the parameter " + name + " occurs twice")
		}
		single[name] = q.Get(name)
	}
	return single, nil
}
