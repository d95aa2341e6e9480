package oauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
)

// Client authentication methods, as named in the metadata's
// token_endpoint_auth_methods_supported.
const (
	authNone  = "none"
	authBasic = "client_secret_basic"
	authPost  = "client_secret_post"
)

// authenticate adds the client's credentials to the form or the header. It returns
// the secrets among them, in each encoding that a server could repeat.
func (c *Client) authenticate(ctx context.Context, header http.Header, form url.Values) ([]string, error) {
	method, err := c.resolveAuthMethod(ctx)
	if err != nil {
		return nil, err
	}
	if method == authNone {
		form.Set("client_id", c.clientID)
		return nil, nil
	}
	secret, err := c.clientSecret()
	if err != nil {
		return nil, fmt.Errorf("reading client_secret: %w", err)
	}
	if secret == "" {
		return nil, errors.New("client_secret is empty")
	}
	secrets := []string{secret, url.QueryEscape(secret)}
	if method == authPost {
		form.Set("client_id", c.clientID)
		form.Set("client_secret", secret)
		return secrets, nil
	}
	// RFC 6749 section 2.3.1: user name and password are form-encoded.
	req := http.Request{Header: header}
	req.SetBasicAuth(url.QueryEscape(c.clientID), url.QueryEscape(secret))
	return append(secrets, header.Get("Authorization")[len("Basic "):]), nil
}

// resolveAuthMethod returns the configured method, or chooses one by the metadata.
// It does not try several methods: a refused request may invalidate the grant.
func (c *Client) resolveAuthMethod(ctx context.Context) (string, error) {
	if c.authMethod != "" {
		return c.authMethod, nil
	}
	if c.clientSecret == nil {
		return authNone, nil
	}
	m, err := c.metadata(ctx)
	if err != nil {
		return "", err
	}
	switch {
	case m == nil || len(m.authMethods) == 0 || slices.Contains(m.authMethods, authBasic):
		// OpenID Connect Discovery section 3: the default is basic.
		return authBasic, nil
	case slices.Contains(m.authMethods, authPost):
		return authPost, nil
	}
	return "", errors.New("the server's metadata lists neither client_secret_basic nor client_secret_post: " +
		"set token_endpoint_auth_method to the method that the client is registered with")
}
