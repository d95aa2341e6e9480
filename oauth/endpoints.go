package oauth

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
)

// ErrNoEndpoint means that neither the configuration nor the server's metadata
// names the endpoint that a call needs.
var ErrNoEndpoint = errors.New("the authorization server has no such endpoint")

// Endpoints are the URLs of an authorization server. Each is optional unless
// Config says otherwise. It must be https, or http to a loopback host, and have no
// user info and no fragment. The client keeps its query.
type Endpoints struct {
	Authorization              string // authorization_endpoint
	Token                      string // token_endpoint
	UserInfo                   string // userinfo_endpoint
	JWKS                       string // jwks_uri
	Revocation                 string // revocation_endpoint
	EndSession                 string // end_session_endpoint
	PushedAuthorizationRequest string // pushed_authorization_request_endpoint
}

// Names of the endpoints, in the server's metadata and in the Caddyfile.
const (
	authorizationEndpoint = "authorization_endpoint"
	tokenEndpoint         = "token_endpoint"
	userInfoEndpoint      = "userinfo_endpoint"
	jwksURI               = "jwks_uri"
	revocationEndpoint    = "revocation_endpoint"
	endSessionEndpoint    = "end_session_endpoint"
	parEndpoint           = "pushed_authorization_request_endpoint"
)

var endpointNames = []string{
	authorizationEndpoint, tokenEndpoint, userInfoEndpoint, jwksURI, revocationEndpoint, endSessionEndpoint, parEndpoint,
}

func (e Endpoints) byName() map[string]string {
	return map[string]string{
		authorizationEndpoint: e.Authorization,
		tokenEndpoint:         e.Token,
		userInfoEndpoint:      e.UserInfo,
		jwksURI:               e.JWKS,
		revocationEndpoint:    e.Revocation,
		endSessionEndpoint:    e.EndSession,
		parEndpoint:           e.PushedAuthorizationRequest,
	}
}

// endpoint returns the URL of an endpoint from the configuration or else from the
// metadata. It fails with ErrNoEndpoint, with ErrMetadataUnavailable, or because
// the URL in the metadata is invalid.
func (c *Client) endpoint(ctx context.Context, name string) (string, error) {
	if u := c.endpoints[name]; u != "" {
		return u, nil
	}
	m, err := c.metadata(ctx)
	if err != nil {
		return "", err
	}
	if m != nil {
		if err := m.invalidEndpoints[name]; err != nil {
			return "", operatorError{fmt.Errorf("%s in the server's metadata: %w", name, err)}
		}
		if u := m.endpoints[name]; u != "" {
			return u, nil
		}
	}
	return "", fmt.Errorf("%w: %s", ErrNoEndpoint, name)
}

// checkURL accepts https URLs, and http URLs to a loopback host. Its errors do not
// contain the URL, which may hold a password.
func checkURL(raw string) error {
	u, err := url.Parse(raw)
	switch {
	case err != nil || !isPrintable(raw) || strings.Contains(raw, " "):
		return errors.New("is not a URL")
	case u.Hostname() == "" || u.Opaque != "":
		return errors.New("must be a URL with a host")
	case u.User != nil:
		return errors.New("must not hold a user name or password")
	case strings.Contains(raw, "#"):
		return errors.New("must not have a fragment")
	}
	addr, err := netip.ParseAddr(u.Hostname())
	isAddr := err == nil
	if isAddr && (addr.IsLinkLocalUnicast() || addr.IsMulticast() || addr.IsUnspecified()) {
		// The metadata services of clouds have link-local addresses; authorization
		// servers have not.
		return errors.New("must not be a link-local, multicast or unspecified address")
	}
	if u.Scheme == "https" || u.Scheme == "http" && isLoopback(u.Hostname()) {
		return nil
	}
	return errors.New("must be https (http only to a loopback host)")
}

// withQuery adds parameters to a URL. It retains the query of the URL, as RFC 6749
// section 3.1 requires.
func withQuery(endpoint string, query url.Values) (string, error) {
	u, err := url.Parse(endpoint)
	if err != nil {
		return "", errors.New("the endpoint is not a URL")
	}
	if u.RawQuery != "" {
		u.RawQuery += "&"
	}
	u.RawQuery += query.Encode()
	return u.String(), nil
}
