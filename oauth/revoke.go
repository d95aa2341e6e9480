package oauth

import (
	"context"
	"errors"
	"fmt"
	"net/url"
)

// Revoke tells the server that a token is not needed any more (RFC 7009). The
// hint is "refresh_token", "access_token" or empty. A token that the server
// does not know is a success (section 2.2). It fails with ErrNoEndpoint if
// the server has no revocation endpoint, else with a *TokenError.
func (c *Client) Revoke(ctx context.Context, token, typeHint string) error {
	form := url.Values{"token": {token}}
	if typeHint != "" {
		form.Set("token_type_hint", typeHint)
	}
	release, err := c.revokes.acquire(ctx, revocationEndpoint)
	if err != nil {
		return err
	}
	defer release()
	_, err = c.post(ctx, revocationEndpoint, form)
	if errors.Is(err, ErrNoEndpoint) {
		return fmt.Errorf("revoking token: %w", ErrNoEndpoint)
	}
	return err
}
