package caddymodule

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/oauth-session/caddy-oauth-session/oauth"
)

// sharing has the settings that decide whether two handlers use one session, and the
// settings for which that session's tokens are requested.
type sharing struct {
	store, authority, client, site string
	cookie                         cookieUse
	hosts                          hosts
	asked                          map[string]string // by option
	keys                           []string          // the IDs of the keys
	place                          place
	responseMode                   string
}

// share refuses a handler that would use the sessions of another handler although it
// requests other tokens: an app would receive a token that is meant for another app.
func (a *App) share(s sharing) error {
	for _, other := range a.shared {
		if reflect.DeepEqual(s, other) {
			return nil // an equal one has been compared
		}
		if err := cmp.Or(s.clash(other), s.checkResponseMode(other)); err != nil {
			return err
		}
		if !s.sameSession(other) {
			continue
		}
		if option := s.differs(other); option != "" {
			return fmt.Errorf("%s: another oauth_session directive for the same host, client and cookie has another value, "+
				"and both would use one session: its token would reach an app that it was not requested for. "+
				"Give both the same value, or give one of them another cookie { name … } and path_prefix", option)
		}
	}
	a.shared = append(a.shared, s)
	return nil
}

// checkResponseMode refuses two handlers of one login of which one would certainly answer
// the callbacks of the other, and refuse them.
func (s sharing) checkResponseMode(other sharing) error {
	if s.responseMode == other.responseMode || !s.sameLogin(other) || s.place.prefix != other.place.prefix ||
		!s.place.sameServer(other.place) || !s.place.sameHost(other.place) {
		return nil
	}
	return fmt.Errorf("response_mode: two oauth_session directives with one login, one host and the path_prefix %s have the values %s and %s, "+
		"and the first of them answers the callbacks of both. Give both the same value, or give one of them another path_prefix", s.place.prefix, other.responseMode, s.responseMode)
}

// sameSession reports whether one handler may find a session of the other.
func (s sharing) sameSession(other sharing) bool {
	return s.store == other.store && s.authority == other.authority && s.client == other.client && s.site == other.site &&
		s.cookie.name == other.cookie.name && (s.hosts.meet(other.cookie.hosts) || s.cookie.hosts.meet(other.hosts))
}

// differs returns the first option that differs, or "".
func (s sharing) differs(other sharing) string {
	var options []string
	for option, value := range s.asked {
		if other.asked[option] != value {
			options = append(options, option)
		}
	}
	for option := range other.asked {
		if _, ok := s.asked[option]; !ok {
			options = append(options, option)
		}
	}
	if options == nil {
		return ""
	}
	return slices.Min(options)
}

// loginParams affect the sign-in page and not the tokens: parameters of OpenID Connect
// Core, section 3.1.2.1, and hints of Keycloak, Entra ID, Auth0, Cognito and Google.
// Every other parameter may affect the tokens.
var loginParams = []string{
	"prompt", "display", "max_age", "ui_locales", "claims_locales", "id_token_hint", "login_hint", "acr_values",
	"kc_idp_hint", "domain_hint", "connection", "screen_hint", "identity_provider", "idp_identifier", "hd",
}

// askedFor returns the settings that select the tokens, by option. The order and the
// repetition of scopes and resources do not matter.
func askedFor(c oauth.Config) map[string]string {
	asked := map[string]string{
		"audience": c.Audience,
		"scope":    asSet(c.RequestedScopes()),
		"resource": asSet(c.Resources),
	}
	for option, params := range map[string][]oauth.Param{
		"authorize_param": c.AuthorizeParams, "token_param": c.TokenParams, "refresh_param": c.RefreshParams,
	} {
		byName := map[string][]string{}
		for _, p := range params {
			if !slices.Contains(loginParams, p.Name) {
				byName[p.Name] = append(byName[p.Name], p.Value)
			}
		}
		for name, values := range byName {
			if name == "scope" {
				values = strings.Fields(strings.Join(values, " "))
			}
			asked[option+" "+name] = asSet(values)
		}
	}
	return asked
}

func asSet(values []string) string {
	values = slices.Sorted(slices.Values(values))
	return fmt.Sprintf("%q", slices.Compact(values))
}
