package oauth

import (
	"context"
	"errors"
	"fmt"
	"net/url"
)

// Revoke revokes a token (RFC 7009). The hint is "refresh_token", "access_token"
// or empty (section 2.1). For an invalid token servers report success (section
// 2.2). Revoke fails with ErrNoEndpoint if the server has no revocation endpoint,
// and else with a *TokenError.
func (c *Client) Revoke(ctx context.Context, token, typeHint string) error {
	form := url.Values{"token": {token}}
	if typeHint != "" {
		form.Set("token_type_hint", typeHint)
	}
	release, err := c.revocationSlots.acquire(ctx, revocationEndpoint)
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
