package handler

import (
	"errors"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/oauth-session/caddy-oauth-session/oauth"
)

// How often one login is restarted automatically. After that the user gets an error
// page with a link. One restart is enough for an attempt that has expired; a problem
// of the authorization server may last a little longer.
const (
	maxRestartsStale  = 1
	maxRestartsServer = 2
)

// callback is an authorization response with the login attempt that it belongs to.
type callback struct {
	cookie  *http.Cookie // of the attempt
	state   loginState
	attempt loginAttempt
	code    string
	// Set by redeem.
	origin  string
	request *http.Request // its context does not end with the browser's connection
}

// serveCallback completes a login with the authorization response in the URL, or, if
// the server is asked for that, in a form.
func (h *Handler) serveCallback(w http.ResponseWriter, r *http.Request) error {
	if isPrefetch(r) {
		return h.fail(w, r, badRequest(errors.New("a prefetch cannot complete a login")))
	}
	if r.Method == http.MethodPost {
		return h.servePostedCallback(w, r)
	}
	resp, err := readResponse(h.OriginalURL(r).RawQuery)
	if err != nil {
		return h.fail(w, r, badRequest(err))
	}
	resp.inURL = true
	return h.acceptResponse(w, r, resp)
}

// acceptResponse checks everything that binds a response to this browser before it
// sends anything to the authorization server. The order is: state, the attempt's
// cookie, the issuer, and then error or code. A forged callback therefore costs no
// request and spends no code.
func (h *Handler) acceptResponse(w http.ResponseWriter, r *http.Request, resp authorizationResponse) error {
	state, ok := h.openState(resp.State)
	if !ok && resp.Error != "" {
		return h.refusedUnknownLogin(w, r, loginState{ReturnTo: "/"}, resp.Error)
	}
	if !ok {
		// A state of unknown origin must not begin a login, or a link could do so
		// endlessly.
		return h.staleCallback(w, r, loginState{ReturnTo: "/", Restarts: maxRestartsStale}, h.unknownState(r, resp.State))
	}
	h.callbackArrived.Store(true)
	c := h.readCookies(r)
	a, cookie, ok := h.findLoginAttempt(&c, resp.State)
	if !ok {
		return h.staleCallback(w, r, state, missingAttempt(resp.Error))
	}
	// Mix-up defence: the response may come from another server (RFC 9207).
	if err := h.Client.CheckIssuer(r.Context(), resp.Issuer); err != nil {
		return h.fail(w, r, callbackError(err, a.ReturnTo))
	}
	cb := callback{cookie: cookie, state: state, attempt: a, code: resp.Code}
	if resp.Error != "" {
		h.clearLoginCookie(w, cookie.Name)
		h.logRefusal(r, cookie, resp)
		if resp.Error != accessDenied && !a.Explicit && h.hasSession(r, &c) {
			// Another tab has completed its login, which is all that this one was for.
			return h.landWithSession(w, r, &c, a.landings(), a.ReturnTo)
		}
		return h.refusedLogin(w, r, cb, resp)
	}
	if cb.code == "" {
		return h.fail(w, r, badRequest(errors.New("the callback has neither code nor error")))
	}
	if resp.inURL && a.FormPost {
		// The browser's history and the logs of other servers may have the code now.
		h.clearLoginCookie(w, cookie.Name)
		return h.fail(w, r, loginMisconfigured(errCodeInURL, a.ReturnTo))
	}
	if !a.Explicit && h.hasSession(r, &c) {
		// Another tab has completed its login first. The browser has a session, which
		// is all that this login was for. A second session would end the first one,
		// and the requests that use it.
		h.clearLoginCookie(w, cookie.Name)
		return h.landWithSession(w, r, &c, a.landings(), a.ReturnTo)
	}
	return h.redeem(w, r, &c, cb)
}

// errCodeInURL is the cause for which a login with form_post fails.
var errCodeInURL = errors.New("the authorization server sent the code in the URL, although response_mode form_post asks for a form: if it does not support that, leave the option out")

// staleCallback answers a callback whose login attempt does not exist any longer.
// It comes from the back button, a second tab or a bookmark. With a session the
// browser goes to the requested page. Without one the login is restarted, which
// users seldom notice: the authorization server usually answers without a prompt.
func (h *Handler) staleCallback(w http.ResponseWriter, r *http.Request, state loginState, cause error) error {
	refused, isRefusal := errors.AsType[*refusalError](cause)
	if isRefusal && refused.code == accessDenied {
		return h.refusedUnknownLogin(w, r, state, refused.code) // the user may have wanted that
	}
	retryLater := func(err error) *Error {
		e := unavailable(err)
		e.Retry = state.ReturnTo
		return e
	}
	switch c := h.readCookies(r); {
	case c.err != nil:
		return h.fail(w, r, retryLater(c.err))
	case c.valid:
		switch _, err := h.Keeper.Peek(r.Context(), c.secret); {
		case err == nil:
			return h.landWithSession(w, r, &c, h.landingsBeforeStale(&c, state), state.ReturnTo)
		case isUnavailable(err):
			return h.fail(w, r, retryLater(err))
		}
	}
	if state.Restarts < maxRestartsStale {
		return h.restart(w, r, state, loginAttempt{ReturnTo: state.ReturnTo})
	}
	if isRefusal {
		return h.refusedUnknownLogin(w, r, state, refused.code)
	}
	recent := time.Since(time.UnixMicro(state.Begun)) < loginAttemptLifetime
	if c := h.parseCookies(r); recent && h.hasRecentAttempt(&c) {
		return h.fail(w, r, loginInOtherTab(cause, state.ReturnTo))
	}
	h.log(r).Info("login not completed", zap.Error(cause))
	if r.Header["Cookie"] == nil && recent {
		return h.fail(w, r, cookiesBlocked(state.ReturnTo))
	}
	return h.fail(w, r, &Error{
		Status: http.StatusBadRequest, Code: "login_expired", Title: "This sign-in has expired",
		Detail: "It took too long, was completed already, or was begun in another browser.",
		Retry:  state.ReturnTo, Err: cause, login: true,
	})
}

// refusedLogin answers a callback that carries an error code (RFC 6749, section
// 4.1.2.1; OpenID Connect Core, section 3.1.2.6).
func (h *Handler) refusedLogin(w http.ResponseWriter, r *http.Request, cb callback, resp authorizationResponse) error {
	code := resp.Error
	e := loginRefused(code, resp.Description, cb.attempt.ReturnTo)
	switch code {
	case "login_required", "interaction_required", "account_selection_required", "consent_required":
		// The next try is sent without prompt=none, so that the server may show the
		// page that it needs. A configured prompt=none forbids that page.
		if h.Client.ConfiguresPromptNone() {
			e.Detail = "The sign-in service has to ask you something, which this site does not allow. Sign in there first."
			break
		}
		fallthrough
	case "temporarily_unavailable", "server_error":
		if cb.state.Restarts < maxRestartsServer {
			return h.restart(w, r, cb.state, cb.attempt)
		}
	case accessDenied:
		e = loginDenied(cb.attempt.ReturnTo)
	}
	e.audit = h.refusedOnce(cb, code)
	return h.fail(w, r, e)
}

// restart begins another login for the same page, with the same parameters.
func (h *Handler) restart(w http.ResponseWriter, r *http.Request, state loginState, a loginAttempt) error {
	h.Meter.Login("restarted")
	return h.startLogin(w, r, loginRequest{
		returnTo: a.ReturnTo, explicit: a.Explicit, restarts: state.Restarts + 1, params: state.Params.afterRefusal(),
	})
}

// callbackError answers a failure between the code and the session.
func callbackError(err error, returnTo string) *Error {
	if e := serverFailure(err, returnTo); e != nil {
		return e
	}
	return &Error{
		Status: http.StatusBadGateway, Code: "login_failed", Title: "Signing in did not work",
		Detail: "The answer of the sign-in service could not be accepted.", Retry: returnTo, Err: err, login: true,
	}
}

// serverFailure answers a call of the authorization server that failed during a
// login: 502 without a reload if only an operator can help, and 503 with Retry-After
// if time may help. It returns nil if the failure is neither.
func serverFailure(err error, returnTo string) *Error {
	if errors.Is(err, oauth.ErrBusy) {
		return loginBusy(err, returnTo)
	}
	if oauth.NeedsOperator(err) {
		return loginMisconfigured(err, returnTo)
	}
	if tokenErr, ok := errors.AsType[*oauth.TokenError](err); ok {
		switch tokenErr.Kind {
		case oauth.Unavailable, oauth.Unanswered, oauth.TimedOut:
			return loginUnavailable(err, returnTo)
		}
	}
	if errors.Is(err, oauth.ErrMetadataUnavailable) || errors.Is(err, oauth.ErrKeysUnavailable) {
		return loginUnavailable(err, returnTo)
	}
	return nil
}
