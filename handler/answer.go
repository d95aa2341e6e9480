package handler

import (
	"cmp"
	"encoding/json"
	"math"
	"net/http"
	"strconv"

	"go.uber.org/zap"
)

// Refuse answers a request with an error, as the Handler answers it with its own:
// people get a page, by Config.Fail, and programs get a problem document (RFC 9457).
// It is for a surrounding server that cannot pass the request to ServeHTTP.
func (h *Handler) Refuse(w http.ResponseWriter, r *http.Request, e *Error) error {
	return h.fail(w, r, e)
}

// fail answers with an error. All errors of the Handler come through here. kindOf
// decides whether the answer is a page or a problem document, and wayOut decides the
// actions of the page.
func (h *Handler) fail(w http.ResponseWriter, r *http.Request, e *Error) error {
	h.beginAnswer(w, r)
	e.prefix = h.PathPrefix
	if e.SwitchAccount {
		e.otherAccount = h.Client.OtherAccountPrompt()
	}
	if e.Status != http.StatusUnauthorized { // nothing has gone wrong without a session
		e.Reference = NewReference()
		h.Note(r, e.Reference)
	}
	h.Meter.Refusal(e.Code)
	if e.audit != nil {
		e.audit.Reference = e.Reference
		h.audit(r, *e.audit)
	}
	if e.login {
		h.Meter.Login(e.Code)
	}
	if e.Status >= http.StatusInternalServerError && r.Context().Err() == nil {
		h.logFailure(r, e)
	}
	kind := h.kindOf(r)
	if kind == programRequest {
		e.writeProblem(w, h.PathPrefix)
		return nil
	}
	switch {
	case h.OriginalURL(r).Path == h.PathPrefix+callbackPath:
		// Config.Fail may log the error with the URL, which contains the code. The
		// page of the callback is therefore always the Handler's own. It does not
		// reload the callback either, since that would send the code again.
		if e.home == "" {
			e.Retry = cmp.Or(e.Retry, "/")
		}
		e.again = cmp.Or(e.again, loginLink(h.PathPrefix, cmp.Or(e.Retry, "/"), ""))
		e.Write(w, r)
		return nil
	case kind == formRequest:
		e.home = h.refererPath(r)
	case e.RetryAfter > 0 && isRead(r):
		e.home = h.originalRequestURI(r)
	}
	c := h.parseCookies(r)
	if !e.loop && c.hasLoopCount() {
		h.countAnswer(w, r, &c, h.errorTarget(r, e), false)
	}
	removeOwnCookies(r, &c)
	e.setRetryAfter(w)
	if e.loop && h.errorTarget(r, e) != toPage {
		e.Write(w, r) // the redirect would lead back into the loop
		return nil
	}
	return h.Fail(w, r, e)
}

// logFailure logs a failure at most once a minute for each code and cause, so that one
// cause does not hide another one.
func (h *Handler) logFailure(r *http.Request, e *Error) {
	suppressed, ok := h.logLimiter.allowCause(e.Code, e.Err)
	if !ok {
		return
	}
	h.log(r).Error("request failed", zap.String("code", e.Code), zap.Int("status", e.Status), zap.Error(e.Err),
		zap.String("reference", e.Reference), zap.Int("suppressed", suppressed))
}

// log returns the logger for a line about a request.
func (h *Handler) log(r *http.Request) *zap.Logger {
	if id := h.RequestID(r); id != "" {
		return h.Logger.With(zap.String("request_id", id))
	}
	return h.Logger
}

// refererPath returns the path of the page of this site that sent a request, or "/".
func (h *Handler) refererPath(r *http.Request) string {
	origin, failure := h.origin(r)
	if failure != nil {
		return "/"
	}
	return h.returnToPath(r.Referer(), origin)
}

// beginAnswer sets the headers of every answer that the Handler itself gives. Such an
// answer concerns one user: it must not be stored or leaked by a referrer, and no
// other site may frame it (see framePolicy).
func (h *Handler) beginAnswer(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	// The cache of a service worker ignores no-store, but it never answers with a
	// stored answer that has this line (Service Workers, "Request matches cached
	// item"). A stored redirect to the login would lead in a circle: after the login,
	// the worker would answer the requested page with it again.
	header.Set("Vary", "*")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	h.frames.set(header)
	if r.ProtoMajor == 1 && hasMember(r.Header["Expect"], "100-continue") {
		// The client waits before it sends the body. To use the connection again,
		// net/http would read the body before it sends the answer, if a server
		// around the Handler has replaced Request.Body, as Caddy does.
		header.Set("Connection", "close")
	}
}

// retryAfterSeconds rounds up, so that a client does not come back too early.
func (e *Error) retryAfterSeconds() int { return int(math.Ceil(e.RetryAfter.Seconds())) }

func (e *Error) setRetryAfter(w http.ResponseWriter) {
	if e.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(e.retryAfterSeconds()))
	}
}

// problem is a problem document (RFC 9457).
type problem struct {
	Title    string `json:"title"`
	Status   int    `json:"status"`
	Code     string `json:"code"`
	Detail   string `json:"detail,omitempty"`
	LoginURL string `json:"login_url,omitempty"`
	// Reference identifies the answer in the log.
	Reference string `json:"reference,omitempty"`
}

func (e *Error) writeProblem(w http.ResponseWriter, prefix string) {
	p := problem{Title: e.Title, Status: e.Status, Code: e.Code, Detail: e.Detail, Reference: e.Reference}
	if e.Status == http.StatusUnauthorized {
		p.LoginURL = prefix + loginPath
	}
	body, _ := json.Marshal(p) // marshalling strings and a number cannot fail
	e.setRetryAfter(w)
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(e.Status)
	_, _ = w.Write(append(body, '\n'))
}

// Write answers with an HTML page. ServeHTTP has set the security headers before it
// calls Config.Fail.
func (e *Error) Write(w http.ResponseWriter, r *http.Request) {
	e.setRetryAfter(w)
	p := page{Title: e.Title, Detail: e.Detail, Code: e.Code, Reference: e.Reference}
	e.wayOut(&p, r)
	_ = writePage(w, r, e.Status, p)
}

// wayOut adds the actions of an error page. Every page has one: a link, a button, or
// both. A page reloads by itself only if time alone can help. The answer to a form
// does not reload, because that would request the form's target with GET; that of the
// callback goes to a new login instead.
func (e *Error) wayOut(p *page, r *http.Request) {
	if e.RetryAfter > 0 && !e.NeedsOperator && (isRead(r) || e.again != "") {
		p.RefreshAfter, p.RefreshTo = e.retryAfterSeconds(), e.again
	}
	switch {
	case e.SwitchAccount:
		p.Link, p.LinkText = loginLink(e.prefix, e.Retry, e.otherAccount), "Use another account"
	case e.Retry != "":
		p.Link, p.LinkText = loginLink(e.prefix, e.Retry, ""), "Sign in again"
	case e.RetryAfter > 0 && e.home != "":
		p.Link, p.LinkText = e.home, "Try again"
	case !e.SignOut:
		p.Link, p.LinkText = cmp.Or(e.home, "/"), "Continue"
	}
	if e.Status == http.StatusUnauthorized {
		p.LinkID = "login_url" // as the member of a problem document
	}
	if e.SwitchAccount || e.SignOut {
		p.Post, p.PostText = e.prefix+"/logout", "Sign out"
	}
}
