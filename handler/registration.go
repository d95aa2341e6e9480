package handler

import (
	"net/http"
	"strings"
)

const (
	clientPath = "/client.json"
	keysPath   = "/jwks.json"
)

// ClientMetadata is the answer of client.json: the metadata of this client to register at the
// authorization server (RFC 7591, section 2; OpenID Connect Registration, section 2). With
// its URL as client_id, it is a client ID metadata document
// (draft-ietf-oauth-client-id-metadata-document). Unknown values are left out.
type ClientMetadata struct {
	ClientID                string   `json:"client_id"`
	ApplicationType         string   `json:"application_type"`
	RedirectURIs            []string `json:"redirect_uris"`
	PostLogoutRedirectURIs  []string `json:"post_logout_redirect_uris,omitempty"`
	BackchannelLogoutURI    string   `json:"backchannel_logout_uri,omitempty"`
	FrontchannelLogoutURI   string   `json:"frontchannel_logout_uri,omitempty"`
	FrontchannelNeedsSID    bool     `json:"frontchannel_logout_session_required,omitempty"`
	InitiateLoginURI        string   `json:"initiate_login_uri,omitempty"`
	GrantTypes              []string `json:"grant_types"`
	ResponseTypes           []string `json:"response_types"`
	Scope                   string   `json:"scope,omitempty"`
	TokenEndpointAuthMethod string   `json:"token_endpoint_auth_method,omitempty"`
	AuthSigningAlg          string   `json:"token_endpoint_auth_signing_alg,omitempty"`
	JWKSURI                 string   `json:"jwks_uri,omitempty"`
}

// serveClient answers the metadata to register at the authorization server. It needs no
// session and uses no network.
func (h *Handler) serveClient(w http.ResponseWriter, r *http.Request) error {
	origin, failure := h.origin(r)
	if failure != nil {
		return h.fail(w, r, failure)
	}
	registered := h.Client.Registration()
	if isMetadataURL(registered.ClientID) && registered.ClientID != origin+h.PathPrefix+clientPath {
		// A server must refuse a document whose client_id is not its URL.
		e := notFound()
		e.Detail = "The client_id of this site is the URL of another document."
		return h.fail(w, r, e)
	}
	return writeJSON(w, r, http.StatusOK, h.ClientMetadata(origin))
}

// ClientMetadata returns the metadata to register for a site with an origin, such as
// https://app.example.com.
func (h *Handler) ClientMetadata(origin string) ClientMetadata {
	base, registered := origin+h.PathPrefix, h.Client.Registration()
	m := ClientMetadata{
		ClientID:                registered.ClientID,
		ApplicationType:         "web",
		RedirectURIs:            []string{base + callbackPath},
		GrantTypes:              []string{"authorization_code", "refresh_token"},
		ResponseTypes:           []string{"code"},
		Scope:                   registered.Scope,
		TokenEndpointAuthMethod: registered.AuthMethod,
		AuthSigningAlg:          registered.AuthSigningAlg,
	}
	if h.Client.OpenID() {
		m.PostLogoutRedirectURIs = []string{base + "/logout/callback"}
		m.BackchannelLogoutURI = base + backchannelPath
		if strings.HasPrefix(base, "https:") { // OpenID Connect Core, section 4
			m.InitiateLoginURI = base + loginPath
		}
	}
	if h.FrontchannelLogout {
		m.FrontchannelLogoutURI, m.FrontchannelNeedsSID = base+frontchannelPath, true
	}
	if h.Client.PublicKeys() != nil {
		m.JWKSURI = base + keysPath
	}
	return m
}

// isMetadataURL reports whether a client_id has the form of the URL of a client ID
// metadata document.
func isMetadataURL(clientID string) bool { return strings.HasPrefix(clientID, "https://") }

// serveKeys answers the public keys of the client. Its answer must not be stored, like
// every other one: a cached copy would hide a new key from the authorization server,
// which would then refuse the assertions of that key.
func (h *Handler) serveKeys(w http.ResponseWriter, r *http.Request) error {
	keys := h.Client.PublicKeys()
	if keys == nil {
		return h.fail(w, r, notFound())
	}
	return writeJSON(w, r, http.StatusOK, keys)
}
