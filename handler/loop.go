package handler

import (
	"encoding/json"
	"errors"
	"net/http"
	"time"
)

const (
	// After loopLimit logins within loopWindow without the session cookie being
	// sent back, another login would not help.
	loopLimit  = 3
	loopWindow = time.Minute
)

func loginLoop(a loginAttempt) *Error {
	return &Error{
		Status: http.StatusInternalServerError, Code: "login_loop",
		Title:  "Your browser is not keeping you signed in",
		Detail: "You have signed in several times, but this site does not find your session afterwards. Your browser may block this site's cookies, or an older cookie may be in the way. Allow or delete this site's cookies and try again.",
		Err:    errors.New("three logins within a minute, and no later request had a session: the browser or a proxy drops the session cookie (check cookie domain), several cookies have its name, or the instances do not share one store"),
		Retry:  a.ReturnTo, login: true,
	}
}

// loopCookieName is the name of a sealed cookie that counts completed logins. It is
// set together with the session cookie, and deleted as soon as the browser sends
// the session cookie. The names of login attempts are longer.
const loopCookieName = loginCookiePrefix + "loop"

// loopCount is the number of logins that a browser has completed without sending
// the session cookie, and the time of the first one.
type loopCount struct {
	Completed int   `json:"c"`
	Since     int64 `json:"s"` // Unix time
}

// setLoopCount counts a login that was completed just now. If the value cannot be
// sealed, the count starts again; a login must not fail for that.
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

// readLoopCount returns the count that a browser sends, unless it is too old.
func (h *Handler) readLoopCount(c *cookies) (completed int, since time.Time) {
	for _, login := range c.logins {
		var n loopCount
		plain, ok := h.openLoopCookie(login)
		if !ok || json.Unmarshal(plain, &n) != nil {
			continue
		}
		if at := time.Unix(n.Since, 0); n.Completed > completed && time.Since(at) < loopWindow {
			completed, since = n.Completed, at
		}
	}
	return completed, since
}

// openLoopCookie opens a cookie if it is the loop count.
func (h *Handler) openLoopCookie(c *http.Cookie) (plain []byte, ok bool) {
	if c.Name != loopCookieName {
		return nil, false
	}
	return h.Keeper.Site.OpenFromBrowser(loopCookieName, c.Value)
}

// clearLoopCount deletes the count, because the session cookie came back.
func (h *Handler) clearLoopCount(w http.ResponseWriter, c *cookies) {
	if c.hasLoopCount() {
		h.clearLoginCookie(w, loopCookieName)
	}
}

// hasLoopCount reports whether the browser sends a count of completed logins.
func (c *cookies) hasLoopCount() bool {
	for _, login := range c.logins {
		if login.Name == loopCookieName {
			return true
		}
	}
	return false
}
