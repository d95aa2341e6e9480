package oauth

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// maxAssertionFile limits a file with an assertion, in bytes.
const maxAssertionFile = 16 << 10

// ErrAssertionExpired means that the assertion in the file of Config.ClientAssertion
// has expired, and that the file has no newer one. Later calls look again.
var ErrAssertionExpired = errors.New("the assertion has expired")

// ClientAssertion is an assertion about the client that another program writes to a
// file and renews there: a service account token of Kubernetes, a federated token of
// Entra workload identity, or a SPIFFE JWT-SVID.
type ClientAssertion struct {
	// File is the path. The client looks at the file for each request.
	File string
	// Type is the client_assertion_type (RFC 7521 section 4.2). A name without a colon
	// is short for urn:ietf:params:oauth:client-assertion-type:<name>. Empty means
	// jwt-bearer (RFC 7523); jwt-spiffe is that of a JWT-SVID.
	Type string
}

// typeURI returns the client_assertion_type.
func (a ClientAssertion) typeURI() string {
	switch {
	case a.Type == "":
		return jwtBearer
	case !strings.Contains(a.Type, ":"):
		return assertionTypePrefix + a.Type
	}
	return a.Type
}

func (a ClientAssertion) check() error {
	switch {
	case a.File == "" && a.Type == "":
		return nil
	case a.File == "":
		return errors.New("client_assertion: the file is missing")
	case !isPrintable(a.Type) || strings.Contains(a.Type, " "):
		return fmt.Errorf("client_assertion: the type %s is not a name or a URI", quote(a.Type))
	}
	return checkPath("client_assertion", a.File)
}

// foundAssertion is an assertion from a file.
type foundAssertion struct {
	token   string
	expires time.Time // zero: unknown
}

// parseAssertion reads a JWT, without verification: that is the server's business. Its
// errors contain nothing of the content.
func parseAssertion(content []byte) (foundAssertion, error) {
	token := strings.TrimSpace(string(content))
	parts := strings.Split(token, ".")
	switch {
	case token == "":
		return foundAssertion{}, errors.New("is empty")
	case len(parts) != 3 || slices.Contains(parts, ""):
		return foundAssertion{}, errors.New("holds no signed JWT")
	}
	var decoded [3][]byte
	for i, part := range parts {
		var err error
		if decoded[i], err = base64.RawURLEncoding.DecodeString(part); err != nil || strings.ContainsAny(part, "\r\n") {
			return foundAssertion{}, errors.New("holds no signed JWT: a part is not base64url")
		}
	}
	payload, err := parseObject(decoded[1])
	if err != nil {
		return foundAssertion{}, errors.New("holds a JWT whose payload is not JSON")
	}
	return foundAssertion{token, claims(payload).optionalTime("exp")}, nil
}

// fileAssertion returns the assertion in the file. A file that is missing or half
// written costs no request while the former assertion is valid. After its expiry the
// client does not send it any more: a refused request may use up a code.
func (c *Client) fileAssertion(now time.Time) (string, error) {
	found, loaded, err := c.assertionFile.current()
	if err != nil && (!loaded || found.expires.IsZero() || now.After(found.expires)) {
		return "", err
	}
	return found.token, c.checkExpiry(found, now)
}

// checkAssertionFile says why the file cannot be used now.
func (c *Client) checkAssertionFile() error {
	found, _, err := c.assertionFile.current()
	if err != nil {
		return err
	}
	return c.checkExpiry(found, time.Now())
}

// checkExpiry refuses an assertion that has certainly expired: the clock of this host
// may be ahead of the server's.
func (c *Client) checkExpiry(found foundAssertion, now time.Time) error {
	late := now.Sub(found.expires)
	if found.expires.IsZero() || late <= leeway {
		return nil
	}
	return fmt.Errorf("%s %s: %w %d seconds ago: is the program running that renews it?",
		c.assertionFile.option, c.assertionFile.path, ErrAssertionExpired, int64(late.Seconds()))
}
