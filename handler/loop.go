package handler

import (
	"encoding/json"
	"errors"
	"net/http"
	"time"
)

const (
	// A browser that lands loopLimit times within loopWindow, and shows no page in
	// between, is in a loop. A landing is the redirect from the callback to the
	// requested page.
	loopLimit  = 3
	loopWindow = time.Minute
)

// loopCookieName is the name of a sealed cookie that counts landings. Every landing
// sets it. The first answer that shows a page to a browser with a session deletes it.
// The names of login attempts are longer.
const loopCookieName = loginCookiePrefix + "loop"

// loopCount has the landings of a browser that has seen no page since the first one.
type loopCount struct {
	Landings int   `json:"c"`
	Since    int64 `json:"s"`           // Unix time of the first landing
	Landed   int64 `json:"t,omitempty"` // of the last one, in Unix microseconds
	// Redirected is the target of the app's redirect after the last landing.
	Redirected redirectTarget `json:"r,omitempty"`
}

// landings returns the count with which a login attempt began.
func (a *loginAttempt) landings() loopCount {
	n := loopCount{Landings: a.Completed}
	if a.Completed > 0 {
		n.Since = a.LoopSince.Unix()
	}
	return n
}

// another returns the count after one more landing.
func (n loopCount) another() loopCount {
	now := time.Now()
	if n.Landings == 0 {
		n.Since = now.Unix()
	}
	return loopCount{Landings: n.Landings + 1, Since: n.Since, Landed: now.UnixMicro()}
}

// setLoopCount stores a count in the browser.
func (h *Handler) setLoopCount(w http.ResponseWriter, n loopCount) {
	if c := h.loopCookie(n); c != nil {
		http.SetCookie(w, c)
	}
}

// loopCookie returns the cookie for a count. It returns nil if the window of the count
// has ended, and if the value cannot be sealed: a login must not fail for that.
func (h *Handler) loopCookie(n loopCount) *http.Cookie {
	left := loopWindow - time.Since(time.Unix(n.Since, 0))
	plain, err := marshal(n)
	if err != nil || left < time.Second {
		return nil
	}
	value, err := h.Keeper.Site.SealForBrowser(loopCookieName, plain)
	if err != nil {
		return nil
	}
	return h.loginCookie(loopCookieName, value, int(left/time.Second))
}

// readLoopCount returns the count that a browser sends, unless it is too old.
func (h *Handler) readLoopCount(c *cookies) (greatest loopCount) {
	for _, login := range c.logins {
		var n loopCount
		plain, ok := h.openLoopCookie(login)
		if !ok || json.Unmarshal(plain, &n) != nil {
			continue
		}
		if n.Landings > greatest.Landings && time.Since(time.Unix(n.Since, 0)) < loopWindow {
			greatest = n
		}
	}
	return greatest
}

// openLoopCookie opens a cookie if it is the loop count.
func (h *Handler) openLoopCookie(c *http.Cookie) (plain []byte, ok bool) {
	if c.Name != loopCookieName {
		return nil, false
	}
	return h.Keeper.Site.OpenFromBrowser(loopCookieName, c.Value)
}

// clearLoopCount deletes the count.
func (h *Handler) clearLoopCount(w http.ResponseWriter, c *cookies) {
	if c.hasLoopCount() {
		h.clearLoginCookie(w, loopCookieName)
	}
}

// hasLoopCount reports whether the browser sends a count of landings.
func (c *cookies) hasLoopCount() bool {
	for _, login := range c.logins {
		if login.Name == loopCookieName {
			return true
		}
	}
	return false
}

// landingsBefore returns the count that a new login continues. The error is set if
// the login would be one too many.
//
// The count continues if the last landing led to this login: the answer after it was a
// redirect to the login, its session had ended at once, or its session cookie did not
// come back. Otherwise the user has begun the login, and the count starts again. A
// login that was begun before the last landing, such as that of another tab, has the
// count of its beginning.
func (h *Handler) landingsBefore(r *http.Request, c *cookies, l loginRequest) (loopCount, *Error) {
	n := h.readLoopCount(c)
	switch {
	case n.Landings == 0:
		return loopCount{}, nil
	case l.ended:
		return n, n.tooMany(endedLoop(l.returnTo))
	case n.Redirected == toLogin:
		return n, n.tooMany(redirectLoop(l.returnTo, errRedirected))
	case n.Redirected == toLoginFromError:
		return n, n.tooMany(redirectLoop(l.returnTo, errRedirectedError))
	case !h.hasSession(r, c):
		if n.Redirected == toLoginFromOpen {
			return n, n.tooMany(cookieLoop(l.returnTo))
		}
		return n, nil // the callback decides, because the cookie may come back
	case n.Redirected == toLoginFromOpen:
		return n, n.tooMany(redirectLoop(l.returnTo, errRedirectedOpen))
	}
	return loopCount{}, nil
}

// tooMany returns an error if another landing would reach the limit.
func (n loopCount) tooMany(e *Error) *Error {
	if n.Landings+1 < loopLimit {
		return nil
	}
	return e
}

// landWithSession answers a callback that needs no new session, because the browser
// has one. It counts the landing.
func (h *Handler) landWithSession(w http.ResponseWriter, r *http.Request, c *cookies, n loopCount, returnTo string) error {
	if n.Landings+1 >= loopLimit {
		h.clearLoopCount(w, c)
		return h.fail(w, r, secondLoginLoop(returnTo))
	}
	h.setLoopCount(w, n.another())
	return h.redirectAfterLogin(w, r, returnTo)
}

// landingsBeforeStale returns the count that a callback without a login attempt
// continues. It does so only if the answer after the last landing led to another host,
// where a second login sends browsers to this callback, and if it was begun after that
// landing. Other tabs were begun before. The beginning is unknown if the state was not
// made here.
func (h *Handler) landingsBeforeStale(c *cookies, state loginState) loopCount {
	n := h.readLoopCount(c)
	if n.Redirected != toOtherHost || state.Begun != 0 && state.Begun <= n.Landed {
		return loopCount{}
	}
	return n
}

// The causes of loops in which each landing is followed by a redirect.
var (
	errRedirected      = errors.New("three logins within a minute, and after each one the app or a directive behind oauth_session answered a request with a session by a redirect to the login: it may not accept the token (audience, scope, the header that carries it) or the user")
	errRedirectedOpen  = errors.New("three logins within a minute, and after each one the app redirected to the login from a page that needs no session, where it gets no token: that page is outside of the matcher of oauth_session")
	errRedirectedError = errors.New("three logins within a minute, and after each one an error was answered by a redirect to the login (handle_errors): a login does not help against that error, such as a missing claim")
	errSecondLogin     = errors.New("a second login behind oauth_session sends browsers to its callback: another oauth_session, in this Caddy or in one behind it, or a login of the app has the same redirect_uri. Use one of the logins, or exclude the requests of the second from the matcher of the first, and give it another path_prefix and cookie { name … }")
)

func cookieLoop(returnTo string) *Error {
	return &Error{
		Status: http.StatusInternalServerError, Code: "login_loop",
		Title:  "Your browser is not keeping you signed in",
		Detail: "You have signed in several times, but this site does not find your session afterwards. Your browser may block this site's cookies, or an older cookie may be in the way. Allow or delete this site's cookies and try again.",
		Err:    errors.New("three logins within a minute, and no later request had a session: the browser or a proxy drops the session cookie (check cookie domain), several cookies have its name, or the instances do not share one store"),
		Retry:  returnTo, login: true, loop: true,
	}
}

// redirectLoop answers a login to which the app leads although the user is logged in.
func redirectLoop(returnTo string, cause error) *Error {
	return &Error{
		Status: http.StatusInternalServerError, Code: "login_loop",
		Title:  "This page asks you to sign in again and again",
		Detail: "You are signed in, but each time this page sends you back to the sign-in. If another account does not help, the operator of the site has to correct that.",
		Err:    cause, Retry: returnTo, SignOut: true, login: true, loop: true,
	}
}

// endedLoop answers a login after sessions that had ended before their first page.
func endedLoop(returnTo string) *Error {
	return &Error{
		Status: http.StatusInternalServerError, Code: "login_loop",
		Title:  "Your sign-in ends at once",
		Detail: "You have signed in several times, but each session was over before the page was shown. The operator of the site has to correct that.",
		Err:    errors.New("three logins within a minute, and each session had ended before its first page: the access token expires at once (its lifetime, or the clocks), or the authorization server refuses its refresh token"),
		Retry:  returnTo, login: true, loop: true,
	}
}

// secondLoginLoop answers a callback to which another login leads again and again.
func secondLoginLoop(returnTo string) *Error {
	return &Error{
		Status: http.StatusInternalServerError, Code: "login_loop",
		Title:  "This page asks you to sign in again and again",
		Detail: "You are signed in, but this page needs a second sign-in, which does not work beside the first one. The operator of the site has to correct that.",
		Err:    errSecondLogin, Retry: returnTo, login: true, loop: true,
	}
}
