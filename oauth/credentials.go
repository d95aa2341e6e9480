package oauth

import (
	"encoding/json"
	"errors"
	"strings"
)

// loadCredentials reads the files with credentials for the first time. An assertion
// that has expired is no error: its program may renew it at any time.
func (c *Client) loadCredentials(cfg Config) error {
	if cfg.ClientKeyFile != "" {
		c.keyFile = &watchedFile[clientKeys]{option: "client_key", path: cfg.ClientKeyFile, limit: maxKeyFile, parse: parseClientKeys}
	}
	if cfg.ClientAssertion.File != "" {
		c.assertionFile = &watchedFile[foundAssertion]{
			option: "client_assertion", path: cfg.ClientAssertion.File, limit: maxAssertionFile, parse: parseAssertion,
		}
	}
	if err := c.CheckCredentials(); !errors.Is(err, ErrAssertionExpired) {
		return err
	}
	return nil
}

// CheckCredentials says why the credentials cannot be used as they are now: a file of
// Config.ClientKeyFile or Config.ClientAssertion is unreadable, damaged or weak, the
// assertion in it has expired (ErrAssertionExpired), or the secret is too short for
// client_secret_jwt. The error names the option and the file, and holds no secret. As
// long as the Client has former credentials that are valid, it uses these.
func (c *Client) CheckCredentials() error {
	if c.keyFile != nil {
		if _, _, err := c.keyFile.current(); err != nil {
			return err
		}
	}
	if c.authMethod == authSecretJWT {
		if _, err := c.hmacSecret(); err != nil {
			return err
		}
	}
	if c.assertionFile != nil {
		return c.checkAssertionFile()
	}
	return nil
}

// UsesFiles reports whether the Client reads credentials from files.
func (c *Client) UsesFiles() bool { return c.keyFile != nil || c.assertionFile != nil }

// KeyIDs returns the key IDs of Config.ClientKeyFile. The first is that of the key that
// signs.
func (c *Client) KeyIDs() []string {
	if c.keyFile == nil {
		return nil
	}
	keys, _, _ := c.keyFile.current()
	var ids []string
	for _, key := range keys.keys {
		ids = append(ids, key.id)
	}
	return ids
}

// PublicKeys returns the public parts of the keys of Config.ClientKeyFile as a JSON Web
// Key Set (RFC 7517 section 5), or nil without such a file.
func (c *Client) PublicKeys() json.RawMessage {
	if c.keyFile == nil {
		return nil
	}
	keys, _, _ := c.keyFile.current()
	return keys.public
}

// Registration is what the authorization server must know of the client (RFC 7591
// section 2), apart from the URLs of the site.
type Registration struct {
	ClientID string
	Scope    string // the scopes, separated by spaces; may be empty
	// AuthMethod is token_endpoint_auth_method. It is empty if the server's metadata
	// decides and has not been fetched yet, and for assertions of another program, for
	// which no name is registered.
	AuthMethod string
	// AuthSigningAlg is token_endpoint_auth_signing_alg. It is empty if the client signs
	// no assertions, or if the server's metadata decides and has not been fetched yet.
	AuthSigningAlg string
}

// Registration returns the metadata of the client. It uses no network.
func (c *Client) Registration() Registration {
	r := Registration{ClientID: c.clientID, Scope: strings.Join(c.scopes, " "), AuthMethod: c.authMethod}
	switch c.authMethod {
	case "":
		if s := c.discovery.peek(); s != nil {
			r.AuthMethod = s.value.secretMethod()
		} else if c.skipDiscovery {
			r.AuthMethod = authBasic
		}
	case authAssertion:
		r.AuthMethod = ""
	case authSecretJWT:
		r.AuthSigningAlg = "HS256"
	case authPrivateKeyJWT:
		r.AuthSigningAlg = c.registeredAlgorithm()
	}
	return r
}

// registeredAlgorithm returns the algorithm of the key that signs, or "" if that is not
// known yet.
func (c *Client) registeredAlgorithm() string {
	keys, loaded, _ := c.keyFile.current()
	if !loaded {
		return ""
	}
	key := keys.keys[0]
	if len(key.algorithms()) > 1 && key.alg == "" && !c.skipDiscovery && c.discovery.peek() == nil {
		return ""
	}
	alg, err := key.signingAlg(c.knownAssertionAlgorithms())
	if err != nil {
		return ""
	}
	return alg
}
