package handler

import (
	"encoding/json"
	"errors"
	"net/http"
	"time"
)

const (
	// loopLimit logins within loopWindow, with the session's cookie never coming
	// back, and the next one would not help either.
	loopLimit  = 3
	loopWindow = time.Minute
)

func loginLoop(a loginAttempt) *Error {
	return &Error{
		Status: http.StatusInternalServerError, Code: "login_loop",
		Title:  "Signing in does not last",
		Detail: "You have signed in several times, but your browser does not send back the session's cookie. Cookies may be blocked for this site, or another one of the same name is in the way. Allow or delete this site's cookies and try again.",
		Err:    errors.New("the browser completed three logins within a minute without sending the session's cookie: it blocks cookies, reaches the site under another host, or something on the way drops Set-Cookie"),
		Retry:  a.ReturnTo, login: true,
	}
}

// loopCookieName is that of a sealed cookie which counts completed logins. It is
// set with a session's cookie, and deleted as soon as that one comes back. The
// names of attempts are longer.
const loopCookieName = loginCookiePrefix + "loop"

// loopCount is how many logins a browser has completed in a row without bringing
// back the session's cookie, and since when.
type loopCount struct {
	Completed int   `json:"c"`
	Since     int64 `json:"s"` // Unix time
}

// markCompleted counts a login that was completed just now. Where nothing can be
// sealed the count begins anew.
func (h *Handler) setLoopCount(w http.ResponseWriter, a loginAttempt) {
	if a.LoopSince.IsZero() {
		a.LoopSince = time.Now()
	}
	left := loopWindow - time.Since(a.LoopSince)
	plain, err := marshal(loopCount{Completed: a.Completed + 1, Since: a.LoopSince.Unix()})
	if err != nil || left < time.Second {
		return
	}
	if value, err := h.Keeper.Site.SealForBrowser(loopCookieName, plain); err == nil {
		http.SetCookie(w, h.loginCookie(loopCookieName, value, int(left/time.Second)))
	}
}

// lastCompleted returns the count that a browser brings along, if it is young
// enough.
func (h *Handler) readLoopCount(c *cookies) (completed int, since time.Time) {
	for _, login := range c.logins {
		var n loopCount
		plain, ok := h.openLoopCookie(login, loopCookieName)
		if !ok || json.Unmarshal(plain, &n) != nil {
			continue
		}
		if at := time.Unix(n.Since, 0); n.Completed > completed && time.Since(at) < loopWindow {
			completed, since = n.Completed, at
		}
	}
	return completed, since
}

// openNamed opens a login cookie if it has a certain name.
func (h *Handler) openLoopCookie(c *http.Cookie, name string) (plain []byte, ok bool) {
	if c.Name != name {
		return nil, false
	}
	return h.Keeper.Site.OpenFromBrowser(name, c.Value)
}

// forgetCompleted ends the count: the session's cookie has come back.
func (h *Handler) clearLoopCount(w http.ResponseWriter, c *cookies) {
	if c.hasLoopCount() {
		h.clearLoginCookie(w, loopCookieName)
	}
}

// counts reports whether the browser brings a count of completed logins.
func (c *cookies) hasLoopCount() bool {
	for _, login := range c.logins {
		if login.Name == loopCookieName {
			return true
		}
	}
	return false
}
