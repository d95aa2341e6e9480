package oauth

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// ErrMetadataUnavailable means that the client has not yet been able to fetch
// valid metadata of the server. Later calls try again.
var ErrMetadataUnavailable = errors.New("the authorization server's metadata is not available")

// errNotMetadata marks a response without metadata. The client then tries the next
// well-known URL.
var errNotMetadata error = operatorError{errors.New("no metadata there")}

// metadata holds the used members of the server's metadata (OpenID Connect
// Discovery section 3, RFC 8414 section 2).
type metadata struct {
	endpoints        map[string]string
	invalidEndpoints map[string]error // why an endpoint is not in endpoints
	authMethods      []string         // token_endpoint_auth_methods_supported
	assertionAlgs    []string         // token_endpoint_auth_signing_alg_values_supported
	idTokenAlgs      []string         // id_token_signing_alg_values_supported
	prompts          []string         // prompt_values_supported
	pkceMethods      []string         // code_challenge_methods_supported
	responseModes    []string         // response_modes_supported
	issParameter     bool             // authorization_response_iss_parameter_supported
	requirePAR       bool             // require_pushed_authorization_requests
}

// metadata returns the server's metadata. It returns nil without an error if the
// configuration names all endpoints, so that the client fetches no metadata.
func (c *Client) metadata(ctx context.Context) (*metadata, error) {
	if c.skipDiscovery {
		return nil, nil
	}
	s, err := c.discovery.get(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMetadataUnavailable, err)
	}
	return &s.value, nil
}

// metadataURLs lists the possible URLs of the metadata in order of preference.
func metadataURLs(issuer, discoveryURL string) []string {
	if discoveryURL != "" {
		return []string{discoveryURL}
	}
	u, err := url.Parse(issuer)
	if err != nil || issuer == "" {
		return nil
	}
	// OpenID Connect Discovery section 4.1 removes a final slash of the issuer and
	// appends its path; RFC 8414 section 3.1 inserts its path before the issuer's.
	path := strings.TrimRight(u.EscapedPath(), "/")
	origin := u.Scheme + "://" + u.Host
	return []string{
		origin + path + "/.well-known/openid-configuration",
		origin + "/.well-known/oauth-authorization-server" + path,
	}
}

func (c *Client) fetchMetadata(ctx context.Context) (metadata, time.Duration, error) {
	var first error
	for _, u := range c.metadataURLs {
		body, fresh, err := c.fetchDocument(ctx, u)
		if s, ok := errors.AsType[statusError](err); ok && errors.Is(s, errNeedsOperator) {
			err = fmt.Errorf("%w (%w)", errNotMetadata, s)
		}
		var m metadata
		if err == nil {
			m, err = parseMetadata(body, c.issuer, u)
		}
		if err == nil {
			return m, fresh, nil
		}
		err = fmt.Errorf("fetching %s: %w", u, err)
		if first == nil {
			first = err
		}
		if !errors.Is(err, errNotMetadata) {
			return metadata{}, 0, err
		}
	}
	return metadata{}, 0, first
}

// parseMetadata reads the metadata document fetched from the URL from. Members of a
// wrong type count as missing. It refuses a document of another issuer as a whole.
func parseMetadata(body []byte, issuer, from string) (metadata, error) {
	members, err := parseObject(body)
	if err != nil {
		return metadata{}, fmt.Errorf("%w: %w", errNotMetadata, err)
	}
	got, _ := stringMember(members, "issuer")
	if got != issuer {
		// OpenID Connect Discovery section 4.3, RFC 8414 section 3.3.
		return metadata{}, operatorError{fmt.Errorf("the metadata names the issuer %s, but the option issuer says %s: "+
			"both must be identical; if the metadata has another URL than the issuer, "+
			"set issuer to the server's value and discovery_url to that URL", quote(got), quote(issuer))}
	}
	m := metadata{
		endpoints:        make(map[string]string),
		invalidEndpoints: make(map[string]error),
		authMethods:      stringsMember(members, "token_endpoint_auth_methods_supported"),
		assertionAlgs:    stringsMember(members, "token_endpoint_auth_signing_alg_values_supported"),
		idTokenAlgs:      stringsMember(members, "id_token_signing_alg_values_supported"),
		prompts:          stringsMember(members, "prompt_values_supported"),
		pkceMethods:      stringsMember(members, "code_challenge_methods_supported"),
		responseModes:    stringsMember(members, "response_modes_supported"),
	}
	for _, name := range endpointNames {
		u, ok := stringMember(members, name)
		if !ok || u == "" {
			continue
		}
		err := checkURL(u)
		if err == nil && strings.HasPrefix(from, "https:") && !strings.HasPrefix(strings.ToLower(u), "https:") {
			// Plain http is accepted to loopback hosts only. A remote server must not
			// direct requests to services of this machine, such as Caddy's admin
			// endpoint.
			err = errors.New("must be https, as the metadata itself is")
		}
		if err != nil {
			m.invalidEndpoints[name] = err
			continue
		}
		m.endpoints[name] = u
	}
	m.issParameter = boolMember(members, "authorization_response_iss_parameter_supported")
	m.requirePAR = boolMember(members, "require_pushed_authorization_requests")
	return m, nil
}
