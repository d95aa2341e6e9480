package handler

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/oauth-session/caddy-oauth-session/oauth"
)

// Parameters of the login endpoint that are handed on to the authorization endpoint
// (OpenID Connect Core, section 3.1.2.1). Config.LoginParams adds others.
var (
	// anyPageParams are those that a link on any site may choose. They affect the
	// sign-in page only.
	anyPageParams = []string{"prompt", "login_hint", "ui_locales"}
	// ownPageParams are those that only this site may choose. They say how the user
	// has to authenticate.
	ownPageParams = []string{"acr_values", "max_age"}
	// loginEndpointParams are those that the endpoint itself reads.
	loginEndpointParams = []string{"return_to", "target_link_uri", "iss"}
)

// prompts has the values of `prompt` that a link to the login may use.
var prompts = map[string]bool{"none": true, "login": true, "consent": true, "select_account": true}

const (
	// maxLoginParam bounds the value of a parameter, in bytes.
	maxLoginParam = 256
	// maxLoginParams bounds all of them in JSON, in bytes, since they become part of
	// the state parameter.
	maxLoginParams = 600
)

// loginParams are the parameters that a login hands on, by name. They are part of the
// state, so that a login that restarts has them, too.
type loginParams map[string]string

// CheckLoginParam refuses the name of a parameter that must not be one of
// Config.LoginParams: oauth.CheckLoginParam refuses it, or the login endpoint itself uses
// it.
func CheckLoginParam(name string) error {
	if slices.Contains(loginEndpointParams, name) {
		return fmt.Errorf("the parameter %s: the login endpoint itself uses it", name)
	}
	return oauth.CheckLoginParam(name)
}

// readLoginParams reads the parameters to hand on. ownPage reports that no page of
// another site has chosen them.
func (h *Handler) readLoginParams(encoded string, ownPage bool) (loginParams, error) {
	names := slices.Concat(anyPageParams, h.LoginParams)
	if ownPage {
		names = append(names, ownPageParams...)
	}
	q, err := singleParams(encoded, names...)
	if err != nil {
		return nil, err
	}
	p := loginParams{}
	for name, value := range q {
		if value == "" {
			continue
		}
		if len(value) > maxLoginParam || !utf8.ValidString(value) || strings.ContainsFunc(value, isControl) {
			return nil, fmt.Errorf("the parameter %s is too long, or not a text", name)
		}
		p[name] = value
	}
	if p["prompt"] != "" && !prompts[p["prompt"]] {
		return nil, errors.New("the parameter prompt is not valid")
	}
	if h.Client.ConfiguresParam("acr_values") {
		delete(p, "acr_values") // a link must not weaken the configured one
	}
	if err := h.checkMaxAge(p); err != nil {
		return nil, err
	}
	if plain, err := marshal(p); err != nil || len(plain) > maxLoginParams {
		return nil, errors.New("the parameters are too long together")
	}
	return p, nil
}

func isControl(c rune) bool { return c < ' ' || c == 0x7f }

// checkMaxAge refuses a max_age that is no number of seconds, or that no ID token
// could prove.
func (h *Handler) checkMaxAge(p loginParams) error {
	text, ok := p["max_age"]
	switch {
	case !ok:
		return nil
	case !h.Client.OpenID():
		return errors.New("the parameter max_age needs OpenID Connect: only an ID token says when the user authenticated")
	case p.maxAge() == nil:
		return fmt.Errorf("the parameter max_age is not a number of seconds: %q", printable(text))
	}
	return nil
}

// maxAge returns the parameter max_age in seconds, or nil.
func (p loginParams) maxAge() *int {
	n, err := strconv.ParseUint(p["max_age"], 10, 31)
	if err != nil {
		return nil
	}
	age := int(n)
	return &age
}

// afterRefusal returns the parameters of a login that restarts. A server that could not
// log the user in silently may ask now.
func (p loginParams) afterRefusal() loginParams {
	if p["prompt"] != "none" {
		return p
	}
	p = maps.Clone(p)
	delete(p, "prompt")
	return p
}

// addTo adds the parameters to an authorization request.
func (p loginParams) addTo(r *oauth.AuthorizationRequest) {
	r.MaxAge = p.maxAge()
	for _, name := range slices.Sorted(maps.Keys(p)) {
		if name != "max_age" {
			r.Params = append(r.Params, oauth.Param{Name: name, Value: p[name]})
		}
	}
}

// servePostedLogin accepts the parameters of a login as a form: a third party may begin
// a login so (OpenID Connect Core, section 4). It redirects to the same login with GET.
// The form of another site comes without cookies; the redirect has those that limit the
// login attempts of a browser, and that let it keep its session.
func (h *Handler) servePostedLogin(w http.ResponseWriter, r *http.Request, l loginRequest) error {
	q := url.Values{"return_to": {l.returnTo}}
	for name, value := range l.params {
		q.Set(name, value)
	}
	h.beginAnswer(w, r)
	w.Header().Set("Location", h.PathPrefix+loginPath+"?"+q.Encode())
	w.WriteHeader(http.StatusSeeOther)
	return nil
}
