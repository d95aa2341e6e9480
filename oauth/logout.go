package oauth

import (
	"context"
	"errors"
	"fmt"
	"net/url"
)

// maxIDTokenHint is the longest ID token, in bytes, that the logout URL may
// contain: servers and proxies limit the length of URLs.
const maxIDTokenHint = 4 << 10

// EndSessionURL returns the URL that the browser must visit to log out at the
// server (OpenID Connect RP-Initiated Logout section 2), or "" if the server has no
// end_session_endpoint. The URL leaves out empty arguments, and state if there is
// no redirect URI. If idTokenHint is empty or longer than 4 KiB, the URL has
// client_id instead.
func (c *Client) EndSessionURL(ctx context.Context, idTokenHint, postLogoutRedirectURI, state string) (string, error) {
	ctx, cancel := c.withTimeout(ctx)
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
