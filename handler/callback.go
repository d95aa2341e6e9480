package handler

import (
	"errors"
	"fmt"
	"net/http"

	"go.uber.org/zap"

	"github.com/oauth-session/caddy-oauth-session/oauth"
)

// Automatic restarts of one login, by what went wrong. After that a person has
// to decide.
const (
	maxRestartsStale  = 1
	maxRestartsServer = 2
)

// serveCallback ends a login. Everything that binds the answer to this browser
// is checked before the authorization server is asked for anything: state,
// then the attempt's cookie, then the issuer, and only then error and code.
func (h *Handler) serveCallback(w http.ResponseWriter, r *http.Request) error {
	if isPrefetch(r) {
		return h.fail(w, r, badRequest(errors.New("a login is not completed by a prefetch")))
	}
	q, err := singleParams(h.OriginalURL(r).RawQuery, "state", "code", "error", "error_description", "iss")
	if err != nil {
		return h.fail(w, r, badRequest(err))
	}
	state, ok := h.openState(q["state"])
	if !ok {
		return h.staleCallback(w, r, loginState{ReturnTo: "/", Restarts: maxRestartsStale}, errors.New("the state parameter is missing or was not made here"))
	}
	c := h.readCookies(r)
	a, cookie, ok := h.findLoginAttempt(&c, q["state"])
	if !ok {
		return h.staleCallback(w, r, state, errors.New("this login was completed, given up or begun in another browser"))
	}
	// Protects from the answer of another server (RFC 9207).
	if err := h.Client.CheckIssuer(r.Context(), h.OriginalURL(r).Query()["iss"]); err != nil {
		return h.fail(w, r, callbackError(err, a.ReturnTo))
	}
	if q["error"] != "" {
		h.clearLoginCookie(w, cookie.Name)
		return h.refusedLogin(w, r, state, a, q["error"], q["error_description"])
	}
	if q["code"] == "" {
		return h.fail(w, r, badRequest(errors.New("neither code nor error")))
	}
	if !a.Explicit && h.hasSession(r, &c) {
		// Another tab was faster, and this one has what it waited for. A second
		// session would end the first, and the requests under way in it.
		h.clearLoginCookie(w, cookie.Name)
		return h.landHere(w, r, a.ReturnTo)
	}
	return h.redeem(w, r, &c, callback{cookie: cookie, state: state, attempt: a, code: q["code"]})
}

// landHere is land for those who have not asked for the origin yet.
func (h *Handler) landHere(w http.ResponseWriter, r *http.Request, path string) error {
	origin, failure := h.origin(r)
	if failure != nil {
		return h.fail(w, r, failure)
	}
	return h.redirectAfterLogin(w, r, origin, path)
}

// staleCallback is for an answer whose attempt is over: the back button, a
// second tab, a bookmark. With a session the wanted page is at hand; else one
// more login usually passes unseen.
func (h *Handler) staleCallback(w http.ResponseWriter, r *http.Request, state loginState, cause error) error {
	kept := func(err error) *Error {
		e := unavailable(err)
		e.Retry = state.ReturnTo
		return e
	}
	switch c := h.readCookies(r); {
	case c.err != nil:
		return h.fail(w, r, kept(c.err))
	case c.valid:
		switch _, err := h.Keeper.Peek(r.Context(), c.secret); {
		case err == nil:
			return h.landHere(w, r, state.ReturnTo)
		case isUnavailable(err):
			return h.fail(w, r, kept(err))
		}
	}
	if state.Restarts < maxRestartsStale {
		return h.restart(w, r, state, loginAttempt{ReturnTo: state.ReturnTo})
	}
	h.Logger.Info("login not completed", zap.Error(cause))
	return h.fail(w, r, &Error{
		Status: http.StatusBadRequest, Code: "login_expired", Title: "This sign-in is over",
		Detail: "It took too long, was completed already, or was begun in another browser.",
		Retry:  state.ReturnTo, Err: cause, login: true,
	})
}

// refusedLogin is for an error that the authorization server sent the browser
// back with (RFC 6749, section 4.1.2.1; OpenID Connect Core, section 3.1.2.6).
func (h *Handler) refusedLogin(w http.ResponseWriter, r *http.Request, state loginState, a loginAttempt, code, description string) error {
	h.Logger.Info("login refused by the authorization server",
		zap.String("error", printable(code)), zap.String("error_description", printable(description)))
	switch code {
	case "temporarily_unavailable", "server_error", "login_required", "interaction_required", "account_selection_required", "consent_required":
		if state.Restarts < maxRestartsServer {
			return h.restart(w, r, state, a)
		}
	case "access_denied":
		return h.fail(w, r, &Error{
			Status: http.StatusForbidden, Code: "access_denied", Title: "Sign-in was refused",
			Detail: "You, or the sign-in service, did not allow it.", Retry: a.ReturnTo, login: true,
		})
	}
	return h.fail(w, r, &Error{
		Status: http.StatusBadGateway, Code: "login_failed", Title: "Signing in did not work",
		Detail: "The sign-in service reported a problem.", Retry: a.ReturnTo, login: true,
		Err: fmt.Errorf("the authorization server answered the login with error %q", printable(code)),
	})
}

// restart begins the login anew, for the same page and without a prompt.
func (h *Handler) restart(w http.ResponseWriter, r *http.Request, state loginState, a loginAttempt) error {
	h.Meter.Login("restarted")
	return h.startLogin(w, r, loginRequest{returnTo: a.ReturnTo, explicit: a.Explicit, restarts: state.Restarts + 1})
}

// callbackError sorts what can go wrong between code and session.
func callbackError(err error, wanted string) *Error {
	if errors.Is(err, oauth.ErrBusy) {
		return loginBusy(err, wanted)
	}
	var tokenErr *oauth.TokenError
	if errors.As(err, &tokenErr) {
		switch tokenErr.Kind {
		case oauth.Unavailable, oauth.Unanswered, oauth.TimedOut:
			return loginUnavailable(err, wanted)
		}
	}
	if errors.Is(err, oauth.ErrMetadataUnavailable) || errors.Is(err, oauth.ErrKeysUnavailable) {
		return loginUnavailable(err, wanted)
	}
	return &Error{
		Status: http.StatusBadGateway, Code: "login_failed", Title: "Signing in did not work",
		Detail: "The answer of the sign-in service could not be accepted.", Retry: wanted, Err: err, login: true,
	}
}
