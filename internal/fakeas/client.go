package fakeas

import (
	"net/http"
	"net/url"
)

// The client authentication methods, as in RFC 7591.
const (
	AuthBasic = "client_secret_basic"
	AuthPost  = "client_secret_post"
	AuthNone  = "none"
	// AuthPrivateKeyJWT needs SetAssertionKeys.
	AuthPrivateKeyJWT = "private_key_jwt"
)

// Client is a registered client.
type Client struct {
	ID     string `json:"client_id"`
	Secret string `json:"client_secret"`
	// AuthMethod is the only accepted method. Empty: client_secret_basic, or
	// none for a client without a secret.
	AuthMethod string `json:"token_endpoint_auth_method"`
	// SameAssertion accepts an assertion any number of times while it is valid, as servers
	// accept the tokens that Kubernetes writes into a file.
	SameAssertion bool `json:"same_assertion"`
	// RawBasic compares Basic credentials without form-decoding them first
	// (RFC 6749, section 2.3.1), as many servers do.
	RawBasic bool `json:"raw_basic"`
	// RedirectURIs and PostLogoutRedirectURIs must match exactly.
	RedirectURIs           []string `json:"redirect_uris"`
	PostLogoutRedirectURIs []string `json:"post_logout_redirect_uris"`
	// BackchannelLogoutURI is the URL to which SendLogout posts.
	BackchannelLogoutURI string `json:"backchannel_logout_uri"`
}

// AddClient registers a client. It replaces a client with the same ID.
func (s *Server) AddClient(c Client) {
	if c.AuthMethod == "" {
		c.AuthMethod = AuthBasic
		if c.Secret == "" {
			c.AuthMethod = AuthNone
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clients[c.ID] = c
}

// client returns a registered client.
func (s *Server) client(id string) (Client, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.clients[id]
	return c, ok
}

// authenticate returns the client of a form request. The client must use its
// registered method and no other.
func (s *Server) authenticate(c *call) (Client, *refusal) {
	user, password, basic := c.r.BasicAuth()
	id, secret := c.form.Get("client_id"), c.form.Get("client_secret")
	method := AuthNone
	switch {
	case basic && c.form.Has("client_secret"):
		return Client{}, refuse(http.StatusBadRequest, "invalid_request", "two ways of client authentication")
	case basic:
		method = AuthBasic
	case c.r.Header.Get("Authorization") != "":
		return Client{}, refuse(http.StatusUnauthorized, "invalid_client", "unknown Authorization scheme")
	case c.form.Has("client_secret"):
		method = AuthPost
	case c.form.Has("client_assertion"):
		method = AuthPrivateKeyJWT
	}
	c.entry.AuthMethod = method
	if basic {
		var known bool
		if user, password, known = s.basicCredentials(user, password); !known {
			return Client{}, refuse(http.StatusUnauthorized, "invalid_client", "unknown client")
		}
		if id != "" && id != user {
			return Client{}, refuse(http.StatusBadRequest, "invalid_request", "two client identifiers")
		}
		id, secret = user, password
	}
	client, ok := s.client(id)
	switch {
	case !ok:
		return Client{}, refuse(http.StatusUnauthorized, "invalid_client", "unknown client")
	case client.AuthMethod != method:
		return Client{}, refuse(http.StatusUnauthorized, "invalid_client", "the client is registered for "+client.AuthMethod+", not "+method)
	case client.Secret != secret:
		return Client{}, refuse(http.StatusUnauthorized, "invalid_client", "wrong client secret")
	}
	if method == AuthPrivateKeyJWT {
		if refused := s.checkAssertion(c, client); refused != nil {
			return Client{}, refused
		}
	}
	c.entry.ClientID = id
	return client, nil
}

// basicCredentials decodes Basic credentials as the client's RawBasic demands.
func (s *Server) basicCredentials(user, password string) (id, secret string, known bool) {
	if c, ok := s.client(user); ok && c.RawBasic {
		return user, password, true
	}
	id, err := url.QueryUnescape(user)
	if err != nil {
		return "", "", false
	}
	if c, ok := s.client(id); !ok || c.RawBasic {
		return "", "", false
	}
	secret, err = url.QueryUnescape(password)
	return id, secret, err == nil
}
