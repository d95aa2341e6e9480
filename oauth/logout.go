package oauth

import (
	"context"
	"errors"
	"fmt"
	"net/url"
)

// maxIDTokenHint keeps the logout URL below what servers and proxies accept.
const maxIDTokenHint = 4 << 10

// EndSessionURL returns where to send the browser to log out at the server too
// (OpenID Connect RP-Initiated Logout section 2), or "" if the server has no
// such place. Empty arguments are left out, and state without a redirect URI.
// If the ID token is missing or longer than 4 KiB, client_id is sent in its
// place.
func (c *Client) EndSessionURL(ctx context.Context, idTokenHint, postLogoutRedirectURI, state string) (string, error) {
	ctx, cancel := c.bounded(ctx)
	defer cancel()
	endpoint, err := c.endpoint(ctx, endSessionEndpoint)
	if errors.Is(err, ErrNoEndpoint) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("building the logout request: %w", err)
	}
	query := url.Values{}
	if idTokenHint != "" && len(idTokenHint) <= maxIDTokenHint {
		query.Set("id_token_hint", idTokenHint)
	} else {
		query.Set("client_id", c.clientID)
	}
	if postLogoutRedirectURI != "" {
		query.Set("post_logout_redirect_uri", postLogoutRedirectURI)
		if state != "" {
			query.Set("state", state)
		}
	}
	return withQuery(endpoint, query)
}
