package fakeas

import (
	"html"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// codeLifetime is well below the ten minutes that RFC 6749, section 4.1.2,
// recommends at most.
const codeLifetime = time.Minute

// codeRequest holds the parameters that bind a code to its authorization
// request.
type codeRequest struct {
	redirectURI string
	challenge   string
}

// authorize serves the authorization endpoint. It logs the user in without a
// form.
func (s *Server) authorize(c *call) answer {
	client, ok := s.client(c.form.Get("client_id"))
	if !ok {
		return page(http.StatusBadRequest, "unknown client_id")
	}
	c.entry.ClientID = client.ID
	// The server never redirects to an unregistered URI.
	if !slices.Contains(client.RedirectURIs, c.form.Get("redirect_uri")) {
		return page(http.StatusBadRequest, "redirect_uri is not registered for this client")
	}
	if refused := s.checkAuthorization(c); refused != nil {
		a := s.callback(c, map[string]any{"error": refused.code, "error_description": refused.reason})
		a.code, a.reason = refused.code, refused.reason
		return a
	}
	return s.callback(c, map[string]any{"code": s.login(c, client)})
}

// checkAuthorization checks an authorization request. It returns the error for
// the callback, or nil.
func (s *Server) checkAuthorization(c *call) *refusal {
	for name, values := range c.form {
		if len(values) > 1 && name != "resource" {
			return refuse(0, "invalid_request", "parameter "+name+" is repeated")
		}
	}
	switch {
	case c.forcedError != "":
		return refuse(0, c.forcedError, forcedReason)
	case c.form.Get("response_type") != "code":
		return refuse(0, "unsupported_response_type", "only the code flow is supported")
	case c.form.Get("code_challenge") == "" || c.form.Get("code_challenge_method") != "S256":
		return refuse(0, "invalid_request", "PKCE with S256 is required")
	case !slices.Contains([]string{"", "query", "form_post"}, c.form.Get("response_mode")):
		return refuse(0, "invalid_request", "unsupported response_mode")
	case c.form.Get("prompt") == "none" && c.knobs.PromptNone != "":
		return refuse(0, c.knobs.PromptNone, "prompt is none")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.user(loginName(c)).Disabled {
		return refuse(0, "access_denied", "the user is disabled")
	}
	return nil
}

func loginName(c *call) string {
	if hint := c.form.Get("login_hint"); hint != "" {
		return hint
	}
	return DefaultUser
}

// login starts a family and issues its code.
func (s *Server) login(c *call, client Client) (code string) {
	k, form := c.knobs, c.form
	f := &family{
		id: canary("sid_"), client: client, user: loginName(c), nonce: form.Get("nonce"), acr: form.Get("acr_values"),
		scope: strings.Fields(form.Get("scope")), audience: form["resource"], authTime: time.Now(),
	}
	if aud := form.Get("audience"); aud != "" {
		f.audience = append(f.audience, aud)
	}
	f.refreshable = k.RefreshTokens == RefreshAlways ||
		k.RefreshTokens == RefreshOffline && slices.Contains(f.scope, "offline_access")
	for name, value := range k.RefreshTokenNeeds {
		f.refreshable = f.refreshable && form.Get(name) == value
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nonces.add(f.nonce)
	s.ledger.families[f.id] = f
	t := s.ledger.add(KindCode, canary("CODE_"), f, time.Now().Add(codeLifetime))
	t.code = &codeRequest{redirectURI: form.Get("redirect_uri"), challenge: form.Get("code_challenge")}
	return t.Value
}

// callback sends the browser back to the client.
func (s *Server) callback(c *call, params map[string]any) answer {
	if c.form.Has("state") {
		params["state"] = c.form.Get("state")
	}
	if c.knobs.IssParameter {
		params["iss"] = s.issuer(c.knobs)
	}
	c.knobs.Callback.apply(params)
	v := url.Values{}
	for name, value := range params {
		v.Set(name, text(value))
	}
	uri := c.form.Get("redirect_uri")
	if c.knobs.FormPost || c.form.Get("response_mode") == "form_post" {
		return formPost(uri, v)
	}
	return redirect(addQuery(uri, v))
}

// formPost is the page of OAuth 2.0 Form Post Response Mode.
func formPost(uri string, v url.Values) answer {
	var b strings.Builder
	b.WriteString(`<!doctype html><title>fakeas</title><body onload="document.forms[0].submit()"><form method="post" action="` + html.EscapeString(uri) + `">`)
	for _, name := range slices.Sorted(maps.Keys(v)) {
		b.WriteString(`<input type="hidden" name="` + html.EscapeString(name) + `" value="` + html.EscapeString(v.Get(name)) + `">`)
	}
	b.WriteString("</form>\n")
	return newAnswer(http.StatusOK, "text/html; charset=utf-8", b.String())
}
