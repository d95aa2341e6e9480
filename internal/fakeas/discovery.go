package fakeas

import (
	"net/http"
	"slices"
)

const (
	wellKnownOpenID = "/.well-known/openid-configuration"
	wellKnownOAuth  = "/.well-known/oauth-authorization-server"
)

// issuer returns the issuer identifier.
func (s *Server) issuer(k Knobs) string {
	if k.Issuer != "" {
		return k.Issuer
	}
	return s.URL
}

func (s *Server) discoveryOpenID(c *call) answer {
	return s.discovery(c, DiscoveryOpenID)
}

func (s *Server) discoveryOAuth(c *call) answer {
	return s.discovery(c, DiscoveryOAuth)
}

func (s *Server) discovery(c *call, kind Discovery) answer {
	k := c.knobs
	if !slices.Contains([]Discovery{kind, DiscoveryBoth}, k.Discovery) {
		return notFound(c)
	}
	m := map[string]any{
		"issuer":                                s.issuer(k),
		"authorization_endpoint":                s.URL + "/authorize",
		"token_endpoint":                        s.URL + "/token",
		"jwks_uri":                              s.URL + "/jwks",
		"revocation_endpoint":                   s.URL + "/revoke",
		"response_types_supported":              []string{"code"},
		"response_modes_supported":              []string{"query", "form_post"},
		"grant_types_supported":                 []string{GrantCode, GrantRefresh},
		"code_challenge_methods_supported":      []string{"S256"},
		"token_endpoint_auth_methods_supported": []string{AuthBasic, AuthPost, AuthPrivateKeyJWT, AuthNone},
		"scopes_supported":                      []string{"openid", "profile", "email", "offline_access"},
	}
	m["token_endpoint_auth_signing_alg_values_supported"] = assertionAlgs
	if k.IssParameter {
		m["authorization_response_iss_parameter_supported"] = true
	}
	if kind == DiscoveryOpenID {
		m["userinfo_endpoint"] = s.URL + "/userinfo"
		m["end_session_endpoint"] = s.URL + "/end_session"
		m["subject_types_supported"] = []string{"public"}
		m["id_token_signing_alg_values_supported"] = []string{k.SigningAlg}
		m["backchannel_logout_supported"] = true
		m["backchannel_logout_session_supported"] = true
	}
	k.Metadata.apply(m)
	return jsonAnswer(http.StatusOK, m)
}
