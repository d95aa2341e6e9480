package handler

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"

	"github.com/oauth-session/caddy-oauth-session/oauth"
)

// responseParams are the parameters of an authorization response (RFC 6749, section
// 4.1.2; RFC 9207).
var responseParams = []string{"state", "code", "error", "error_description", "iss"}

// authorizationResponse is the authorization server's answer to a login, as the
// browser delivers it.
type authorizationResponse struct {
	State       string   `json:"s,omitempty"`
	Code        string   `json:"c,omitempty"`
	Error       string   `json:"e,omitempty"`
	Description string   `json:"d,omitempty"`
	Issuer      []string `json:"i,omitempty"` // one value, or none
	inURL       bool
}

// readResponse reads an authorization response from a query or a form.
func readResponse(encoded string) (authorizationResponse, error) {
	q, err := singleParams(encoded, responseParams...)
	if err != nil {
		return authorizationResponse{}, err
	}
	resp := authorizationResponse{State: q["state"], Code: q["code"], Error: q["error"], Description: q["error_description"]}
	// A missing iss differs from an empty one.
	if all, _ := url.ParseQuery(encoded); all.Has("iss") {
		resp.Issuer = []string{q["iss"]}
	}
	return resp, nil
}

const (
	// handOverField is the field of the form that hands a posted response over.
	handOverField = "oauth_session_response"
	// handOverName is the name under which a posted response is sealed. It keeps it
	// apart from the cookies and the state.
	handOverName = "posted response"
	// maxHandOver bounds a sealed response, in bytes, so that the form of the hand-over
	// has less than maxForm.
	maxHandOver = 40 << 10
)

// servePostedCallback accepts an authorization response that the server's page has
// sent as a form (OAuth 2.0 Form Post Response Mode).
//
// A browser sends no cookie with SameSite=Lax or Strict with a form of another site,
// so the login attempt and the session are unknown. The answer is then a page of this
// site that sends the response once more. That form has all cookies. The response is
// sealed, so the page contains no code, and no other page can make up a second form.
//
// Any origin may send the first form, since servers also use other hosts than that of
// their authorization endpoint: as for a callback in the URL, the cookie of the
// attempt binds the response to this browser.
func (h *Handler) servePostedCallback(w http.ResponseWriter, r *http.Request) error {
	form, err := readForm(w, r)
	if err != nil {
		return h.fail(w, r, badRequest(err))
	}
	handedOver, err := singleParams(form, handOverField)
	if err != nil {
		return h.fail(w, r, badRequest(err))
	}
	if sealed := handedOver[handOverField]; sealed != "" {
		return h.serveHandOver(w, r, sealed)
	}
	resp, err := readResponse(form)
	if err != nil {
		return h.fail(w, r, badRequest(err))
	}
	if state, ok := h.openState(resp.State); ok {
		c := h.parseCookies(r)
		if _, _, found := h.findLoginAttempt(&c, resp.State); !found {
			return h.handOver(w, r, resp, state.ReturnTo)
		}
	}
	return h.acceptResponse(w, r, resp)
}

// handOver answers with a page that sends the response again, from this site.
func (h *Handler) handOver(w http.ResponseWriter, r *http.Request, resp authorizationResponse, returnTo string) error {
	plain, err := marshal(resp)
	if err == nil && len(plain) > maxHandOver {
		return h.fail(w, r, badRequest(errors.New("the authorization response is too large")))
	}
	if err != nil {
		return h.fail(w, r, internalError(err))
	}
	sealed, err := h.Keeper.Site.SealForBrowser(handOverName, plain)
	if err != nil {
		return h.fail(w, r, sealingFailed(err, returnTo))
	}
	return writePage(w, r, http.StatusOK, page{
		Title: "Signing in", Detail: "Your sign-in is almost complete.",
		Post: h.PathPrefix + callbackPath, PostText: "Continue",
		PostName: handOverField, PostValue: sealed, PostNow: true,
	})
}

// serveHandOver accepts a response that the page of handOver has sent.
func (h *Handler) serveHandOver(w http.ResponseWriter, r *http.Request, sealed string) error {
	if h.isCrossOrigin(r) {
		return h.fail(w, r, crossOriginError())
	}
	var resp authorizationResponse
	plain, ok := h.Keeper.Site.OpenFromBrowser(handOverName, sealed)
	if !ok || json.Unmarshal(plain, &resp) != nil {
		return h.fail(w, r, badRequest(errors.New("the response was not handed over by this site")))
	}
	return h.acceptResponse(w, r, resp)
}

// wrongMethod answers a request to an endpoint with a method that it does not have.
func (h *Handler) wrongMethod(w http.ResponseWriter, r *http.Request, path, methods string) error {
	w.Header().Set("Allow", methods)
	e := &Error{Status: http.StatusMethodNotAllowed, Code: "method_not_allowed", Title: "Method not allowed", Detail: "This address answers " + methods + "."}
	if path == callbackPath && r.Method == http.MethodPost {
		e.Detail += " If the sign-in service sent you here, the operator of this site can set response_mode " + oauth.ResponseModeFormPost + "."
		if h.logLimiter.allow("posted callback") {
			h.log(r).Warn("the callback got a POST: if the authorization server sends its answers as a form, set response_mode " + oauth.ResponseModeFormPost)
		}
	}
	return h.fail(w, r, e)
}
