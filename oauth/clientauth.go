package oauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Client authentication methods, as named in the metadata's
// token_endpoint_auth_methods_supported. client_assertion is a name of this package,
// for assertions that another program makes.
const (
	authNone          = "none"
	authBasic         = "client_secret_basic"
	authPost          = "client_secret_post"
	authSecretJWT     = "client_secret_jwt"
	authPrivateKeyJWT = "private_key_jwt"
	authAssertion     = "client_assertion"
)

// authenticate adds the client's credentials to the form or the header. It returns
// the secrets among them, in each encoding that a server could repeat.
func (c *Client) authenticate(ctx context.Context, header http.Header, form url.Values) ([]string, error) {
	method, err := c.resolveAuthMethod(ctx)
	if err != nil {
		return nil, err
	}
	switch method {
	case authNone:
		form.Set("client_id", c.clientID)
		return nil, nil
	case authBasic, authPost:
		return c.sendSecret(method, header, form)
	}
	assertion, err := c.assertion(ctx, method)
	if err != nil {
		return nil, err
	}
	// RFC 7521 section 4.2 makes client_id optional. Some servers need it (Entra ID),
	// and none may refuse that of the assertion's client.
	form.Set("client_id", c.clientID)
	form.Set("client_assertion_type", c.assertionType)
	form.Set("client_assertion", assertion)
	return []string{assertion}, nil
}

// sendSecret authenticates with the client secret itself (RFC 6749 section 2.3.1).
func (c *Client) sendSecret(method string, header http.Header, form url.Values) ([]string, error) {
	secret, err := c.secret()
	if err != nil {
		return nil, err
	}
	secrets := []string{secret, url.QueryEscape(secret)}
	if method == authPost {
		form.Set("client_id", c.clientID)
		form.Set("client_secret", secret)
		return secrets, nil
	}
	// User name and password are form-encoded.
	req := http.Request{Header: header}
	req.SetBasicAuth(url.QueryEscape(c.clientID), url.QueryEscape(secret))
	return append(secrets, header.Get("Authorization")[len("Basic "):]), nil
}

// assertion returns the client_assertion for one request.
func (c *Client) assertion(ctx context.Context, method string) (string, error) {
	switch method {
	case authPrivateKeyJWT:
		return c.signAssertion(ctx)
	case authSecretJWT:
		return c.hmacAssertion(ctx)
	}
	return c.fileAssertion(time.Now())
}

// secret returns the current client secret.
func (c *Client) secret() (string, error) {
	secret, err := c.clientSecret()
	if err != nil {
		return "", fmt.Errorf("reading client_secret: %w", err)
	}
	if secret == "" {
		return "", errors.New("client_secret is empty")
	}
	return secret, nil
}

// authMethod returns the configured method, or the only one for which the
// configuration has credentials. It returns "" if the metadata decides.
func (cfg Config) authMethod() string {
	switch {
	case cfg.AuthMethod != "":
		return cfg.AuthMethod
	case cfg.ClientAssertion.File != "":
		return authAssertion
	case cfg.ClientSecret != nil:
		return ""
	case cfg.ClientKeyFile != "":
		return authPrivateKeyJWT
	}
	return authNone
}

// resolveAuthMethod returns the configured method, or chooses one by the metadata.
// It does not try several methods: a refused request may invalidate the grant.
func (c *Client) resolveAuthMethod(ctx context.Context) (string, error) {
	if c.authMethod != "" {
		return c.authMethod, nil
	}
	m, err := c.metadata(ctx)
	if err != nil {
		return "", err
	}
	if method := m.secretMethod(); method != "" {
		return method, nil
	}
	return "", errors.New("the server's metadata lists neither client_secret_basic nor client_secret_post: " +
		"set token_endpoint_auth_method to the method that the client is registered with")
}

// secretMethod returns the method by which a client sends its secret, or "" if the
// server lists none. Without metadata, m is nil.
func (m *metadata) secretMethod() string {
	switch {
	case m == nil || len(m.authMethods) == 0 || slices.Contains(m.authMethods, authBasic):
		// OpenID Connect Discovery section 3: the default is basic.
		return authBasic
	case slices.Contains(m.authMethods, authPost):
		return authPost
	}
	return ""
}

// checkAuthMethod checks that the configuration has the credentials of the method, and
// no others that would not be used.
func (cfg Config) checkAuthMethod() error {
	method := cfg.authMethod()
	if err := cfg.checkCredentials(method); err != nil {
		return err
	}
	if err := checkPath("client_key", cfg.ClientKeyFile); err != nil {
		return err
	}
	if err := cfg.ClientAssertion.check(); err != nil {
		return err
	}
	return cfg.checkAssertionAudience(method == authPrivateKeyJWT || method == authSecretJWT)
}

func (cfg Config) checkCredentials(method string) error {
	usesSecret := false
	switch method {
	case "", authBasic, authPost, authSecretJWT:
		usesSecret = true
		if cfg.ClientSecret == nil {
			return fmt.Errorf("token_endpoint_auth_method %s needs client_secret", method)
		}
	case authNone, authAssertion:
	case authPrivateKeyJWT:
		if cfg.ClientKeyFile == "" {
			return errors.New("token_endpoint_auth_method private_key_jwt needs client_key")
		}
	case "tls_client_auth", "self_signed_tls_client_auth":
		return fmt.Errorf("token_endpoint_auth_method %s is not supported yet", method)
	default:
		return fmt.Errorf("token_endpoint_auth_method %s is unknown: use client_secret_basic, client_secret_post, "+
			"client_secret_jwt, private_key_jwt, client_assertion or none", quote(method))
	}
	switch {
	case method == authAssertion && cfg.ClientAssertion.File == "":
		return errors.New("token_endpoint_auth_method client_assertion needs client_assertion")
	case method != authAssertion && cfg.ClientAssertion != ClientAssertion{}:
		return fmt.Errorf("client_assertion is set, but token_endpoint_auth_method is %s", method)
	case !usesSecret && cfg.ClientSecret != nil:
		return fmt.Errorf("client_secret is set, but token_endpoint_auth_method is %s", method)
	case cfg.AuthMethod == "" && cfg.ClientSecret != nil && cfg.ClientKeyFile != "":
		return errors.New("client_secret and client_key are both set: say with token_endpoint_auth_method which of them authenticates the client")
	}
	return nil
}

// checkPath refuses the content of a file in place of its path, because errors name the
// path.
func checkPath(option, path string) error {
	for _, begin := range []string{"{", "-----", "eyJ"} { // JSON, PEM, a JWT
		if strings.HasPrefix(path, begin) || !isPrintable(path) {
			return errors.New(option + ": give the path of the file, not its content")
		}
	}
	return nil
}
