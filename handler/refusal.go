package handler

import (
	"errors"
	"fmt"
	"net/http"

	"go.uber.org/zap"
)

// accessDenied is the error code of a login that the user or a policy has denied.
const accessDenied = "access_denied"

// refusalError is the error of a callback with an error code, if the browser does not
// have its login attempt.
type refusalError struct{ code string }

func (e *refusalError) Error() string {
	return fmt.Sprintf("the authorization server answered with error %q", printable(e.code))
}

// missingAttempt is the cause for which a callback has no login attempt. The code is
// the error that the authorization server sent, or empty.
func missingAttempt(code string) error {
	if code != "" {
		return &refusalError{code}
	}
	return errors.New("this login was completed, given up or begun in another browser")
}

// logRefusal logs a refused login once a minute for each attempt: a browser can send the
// same callback again and again.
func (h *Handler) logRefusal(r *http.Request, attempt *http.Cookie, resp authorizationResponse) {
	if _, ok := h.logLimiter.allowText("login refused", attempt.Value); ok {
		h.log(r).Info("login refused by the authorization server",
			zap.String("error", printable(resp.Error)), zap.String("error_description", printable(resp.Description)))
	}
}

// refusedOnce returns the audit event of a refused login, or nil if this attempt had one
// within the last minute. All attempts of a site have a hundred in a minute at most.
func (h *Handler) refusedOnce(cb callback, reason string) *AuditEvent {
	if _, ok := h.logLimiter.allowText(AuditLoginRefused, cb.cookie.Value); !ok {
		return nil
	}
	return &AuditEvent{Kind: AuditLoginRefused, Reason: reason}
}

// refusedUnknownLogin answers a callback with an error code that belongs to no login
// attempt of this browser. Some servers send no state with an error. The server did
// refuse, so the page and the log say that. Anyone can send such a request: the page
// does not repeat the code, and the log has it once a minute.
func (h *Handler) refusedUnknownLogin(w http.ResponseWriter, r *http.Request, state loginState, code string) error {
	if h.logLimiter.allow("refused unknown login") {
		h.log(r).Warn("the authorization server refused a login that this browser has not begun, or sent no state with the error",
			zap.String("error", printable(code)))
	}
	e := &Error{
		Status: http.StatusBadRequest, Code: "login_refused", Title: "Sign-in was refused",
		Detail: "The sign-in service refused to sign you in. You can try again; if that does not help, tell the operator of this site.",
		Retry:  state.ReturnTo, login: true,
	}
	if c := h.readCookies(r); h.hasSession(r, &c) {
		e.Retry, e.home = "", state.ReturnTo
	}
	return h.fail(w, r, e)
}

// loginDenied answers a login that the user, or a policy of the server, has denied.
func loginDenied(returnTo string) *Error {
	return &Error{
		Status: http.StatusForbidden, Code: accessDenied, Title: "Sign-in was refused",
		Detail: "You, or the sign-in service, did not allow it.", Retry: returnTo, login: true,
	}
}

// loginRefused answers a login that the authorization server refused for another
// reason.
func loginRefused(code, description, returnTo string) *Error {
	err := fmt.Errorf("the authorization server answered the login with error %q", printable(code))
	if description != "" {
		err = fmt.Errorf("%w: %q", err, printable(description))
	}
	return &Error{
		Status: http.StatusBadGateway, Code: "login_failed", Title: "Signing in did not work",
		Detail: "The sign-in service reported a problem.", Retry: returnTo, login: true,
		Err: err,
	}
}

// cookiesBlocked answers a callback without any cookie, soon after this Handler has
// set one.
func cookiesBlocked(returnTo string) *Error {
	return &Error{
		Status: http.StatusBadRequest, Code: "cookies_blocked", Title: "Your browser sends no cookies",
		Detail: "This site needs cookies to sign you in, and your browser sent none. Allow cookies for this site and sign in again. If you began in another browser, go back to that one.",
		Retry:  returnTo, login: true,
	}
}
