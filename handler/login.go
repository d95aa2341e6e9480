package handler

import (
	"cmp"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/oauth-session/caddy-oauth-session/oauth"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// serveLogin begins a login for a link of the app, of one of the Handler's pages, or of
// a third party (OpenID Connect Core, section 4).
func (h *Handler) serveLogin(w http.ResponseWriter, r *http.Request) error {
	if kind := h.kindOf(r); kind != navigationRequest && kind != formRequest {
		return h.unauthenticated(w, r)
	}
	origin, failure := h.origin(r)
	if failure != nil {
		return h.fail(w, r, failure)
	}
	encoded := h.OriginalURL(r).RawQuery
	if r.Method == http.MethodPost {
		form, err := readForm(w, r)
		if err != nil {
			return h.fail(w, r, badRequest(err))
		}
		encoded += "&" + form
	}
	l, err := h.readLoginRequest(encoded, origin, !isCrossSiteNavigation(r))
	if err != nil {
		return h.fail(w, r, badRequest(err))
	}
	if r.Method == http.MethodPost {
		return h.servePostedLogin(w, r, l)
	}
	c := h.readCookies(r)
	if notice := h.endNotice(r, &c, l.returnTo); notice != nil {
		return h.failEnded(w, r, notice)
	}
	return h.startLogin(w, r, l)
}

// readLoginRequest reads the parameters of the login endpoint. ownPage reports that no
// page of another site has chosen them.
func (h *Handler) readLoginRequest(encoded, origin string, ownPage bool) (loginRequest, error) {
	q, err := singleParams(encoded, loginEndpointParams...)
	if err != nil {
		return loginRequest{}, err
	}
	// A third party that begins a login names the server with iss. This site has only
	// one server.
	if iss := q["iss"]; iss != "" && !h.Client.HasIssuer(iss) {
		return loginRequest{}, errors.New("the parameter iss names another authorization server")
	}
	params, err := h.readLoginParams(encoded, ownPage)
	if err != nil {
		return loginRequest{}, err
	}
	returnTo := h.returnToPath(cmp.Or(q["return_to"], q["target_link_uri"]), origin)
	return loginRequest{returnTo: returnTo, explicit: ownPage, params: params}, nil
}

// isCrossSiteNavigation reports whether a page of another site led to this request.
// Such a link begins a login for a browser without a session, but must not replace
// an existing session (login CSRF).
func isCrossSiteNavigation(r *http.Request) bool {
	return slices.ContainsFunc(r.Header["Sec-Fetch-Site"], func(site string) bool { return site == "cross-site" || site == "same-site" })
}

// loginRequest has the parameters of one login attempt.
type loginRequest struct {
	returnTo string // the path to which the login leads
	explicit bool   // it began at the login endpoint, by the user or the app
	restarts int    // automatic restarts before this attempt
	ended    bool   // this request has found the end of the session
	params   loginParams
}

// startLogin redirects the browser to the authorization server. It stores the
// attempt in a cookie, and nothing on the server.
func (h *Handler) startLogin(w http.ResponseWriter, r *http.Request, l loginRequest) error {
	h.beginAnswer(w, r)
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
	state, err := h.sealState(loginState{ReturnTo: l.returnTo, Restarts: l.restarts, Params: l.params})
	if err != nil {
		return h.fail(w, r, sealingFailed(err, l.returnTo))
	}
	a := loginAttempt{
		State: hashState(state), Verifier: randomText(32), ReturnTo: l.returnTo, Explicit: l.explicit, Begun: time.Now(),
		FormPost: h.Client.FormPost(),
	}
	if h.Client.OpenID() {
		a.Nonce = randomText(32)
	}
	redirect := redirectURI(origin, h.callbackPrefix(w, r))
	h.warnOfMissingCallback(&c, l.returnTo, redirect)
	if landings.Landings > 0 {
		a.Completed, a.LoopSince = landings.Landings, time.Unix(landings.Since, 0)
	}
	request := oauth.AuthorizationRequest{RedirectURI: redirect, State: state, Nonce: a.Nonce, Verifier: a.Verifier}
	l.params.addTo(&request)
	target, err := h.Client.AuthorizationURL(r.Context(), request)
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
	status := http.StatusFound
	if r.Method == http.MethodPost {
		status = http.StatusSeeOther // the browser must not post to the server (RFC 9700, section 4.12)
	}
	w.WriteHeader(status)
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

func redirectURI(origin, prefix string) string { return origin + prefix + callbackPath }

// unauthenticated answers a request without a session. A navigation is redirected
// to the login; any other request gets 401 with the URL of the login.
func (h *Handler) unauthenticated(w http.ResponseWriter, r *http.Request) error {
	if h.isNavigation(r) {
		h.warnOfStrayCallback(r)
		if h.Cookie.sameSite == http.SameSiteStrictMode && r.Header.Get("Sec-Fetch-Site") == "cross-site" {
			return h.reloadForStrictCookie(w, r)
		}
		return h.startLogin(w, r, loginRequest{returnTo: h.originalRequestURI(r)})
	}
	setChallenge(w)
	e := &Error{
		Status: http.StatusUnauthorized, Code: "login_required", Title: "Login required",
		Detail: "There is no session. Open login_url in the browser window.",
	}
	switch h.kindOf(r) {
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
	h.beginAnswer(w, r)
	return h.redirectAfterLogin(w, r, h.originalRequestURI(r))
}

// redirectAfterLogin sends the browser to a page of this site. A redirect that began
// at the authorization server is cross-site, and carries no cookie with
// SameSite=Strict. With such cookies a small page navigates instead, unless a form of
// this site led here.
func (h *Handler) redirectAfterLogin(w http.ResponseWriter, r *http.Request, path string) error {
	origin, failure := h.origin(r)
	if failure != nil {
		return h.fail(w, r, failure)
	}
	target := origin + path
	ownForm := r.Method == http.MethodPost && r.Header.Get("Sec-Fetch-Site") == "same-origin"
	if h.Cookie.sameSite == http.SameSiteStrictMode && !ownForm {
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
