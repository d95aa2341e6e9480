package oauth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// The kinds of problems that Probe finds.
const (
	ProblemCredentials = "credentials"  // the server refuses the client
	ProblemRedirectURI = "redirect_uri" // the server refuses the authorization request
)

// Probe asks the server what no document says: whether it accepts the client's
// credentials and its redirect URI. It sends an authorization request and a code that the
// server has not issued, so it is for an operator who asks for it. What the server answers
// to them is not standardized in all cases; Probe reports only clear refusals, and those
// of the authorization request as warnings.
func (c *Client) Probe(ctx context.Context, redirectURI string) (problems []Problem) {
	const verifier = "a-verifier-that-belongs-to-no-login-at-all-0123456789"
	_, err := c.RedeemCode(ctx, "code-of-no-login", verifier, redirectURI)
	var tokenErr *TokenError
	if errors.As(err, &tokenErr) && tokenErr.Kind == Misconfigured {
		problems = append(problems, Problem{Code: ProblemCredentials, Option: "client_secret",
			Err: fmt.Errorf("the token endpoint refuses the client: %w", err)})
	}
	target, err := c.AuthorizationURL(ctx, AuthorizationRequest{RedirectURI: redirectURI, State: "check", Nonce: "check", Verifier: verifier})
	if err == nil {
		err = c.tryAuthorization(ctx, target, redirectURI)
	}
	if err != nil {
		problems = append(problems, Problem{Code: ProblemRedirectURI, Option: "client_id", Warning: true,
			Err: fmt.Errorf("the authorization endpoint does not show a login: %w (is the redirect URI %s registered?)", err, redirectURI)})
	}
	return problems
}

// maxProbeAnswer bounds how much of the answer is read.
const maxProbeAnswer = 64 << 10

// tryAuthorization sends an authorization request as a browser does, and returns an error
// for an answer that is no login page and no way to one.
func (c *Client) tryAuthorization(ctx context.Context, target, redirectURI string) error {
	ctx, cancel := c.withTimeout(ctx)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return errors.New("its address is not a URL")
	}
	req.Header.Set("Accept", "text/html")
	resp, err := c.http.Do(req)
	if err != nil {
		return connError(err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxProbeAnswer))
	if resp.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("it answers with status %d", resp.StatusCode)
	}
	location := resp.Header.Get("Location")
	if !strings.HasPrefix(location, redirectURI) {
		return nil
	}
	answer, err := url.Parse(location)
	if err != nil {
		return nil
	}
	switch code := answer.Query().Get("error"); code {
	case "", "login_required", "interaction_required", "consent_required":
		return nil
	default:
		return fmt.Errorf("it answers with the error %s", quote(code))
	}
}
