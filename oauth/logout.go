package oauth

import (
	"context"
	"errors"
	"fmt"
	"net/url"
)

// MaxIDTokenHint is the longest ID token, in bytes, that the logout URL may
// contain: servers and proxies limit the length of URLs.
const MaxIDTokenHint = 4 << 10

// LogoutRequest asks the server to log a user out (OpenID Connect RP-Initiated
// Logout section 2). Empty members are not sent.
type LogoutRequest struct {
	// IDTokenHint is the ID token of the session. One of more than MaxIDTokenHint
	// bytes is not sent.
	IDTokenHint string
	// LogoutHint names the session or the user for a server that gets no ID token. It
	// is sent only then.
	LogoutHint string
	// PostLogoutRedirectURI is where the server sends the browser afterwards. It must
	// be registered there.
	PostLogoutRedirectURI string
	// State comes back to PostLogoutRedirectURI. It is not sent without that.
	State string
}

// EndSessionURL returns the URL that the browser must visit to log out at the
// server, or "" if the server has no end_session_endpoint. A URL without ID token has
// client_id instead.
func (c *Client) EndSessionURL(ctx context.Context, r LogoutRequest) (string, error) {
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
	if r.IDTokenHint != "" && len(r.IDTokenHint) <= MaxIDTokenHint {
		query.Set("id_token_hint", r.IDTokenHint)
	} else {
		query.Set("client_id", c.clientID)
		if r.LogoutHint != "" {
			query.Set("logout_hint", r.LogoutHint)
		}
	}
	if r.PostLogoutRedirectURI != "" {
		query.Set("post_logout_redirect_uri", r.PostLogoutRedirectURI)
		if r.State != "" {
			query.Set("state", r.State)
		}
	}
	return withQuery(endpoint, query)
}
