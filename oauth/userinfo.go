package oauth

import (
	"context"
	"encoding/json"
	"errors"
	"mime"
	"net/http"
)

// UserInfo requests the claims about the user from the UserInfo endpoint (OpenID
// Connect Core section 5.3). The response must have a sub, and that must equal
// subject unless subject is empty (section 5.3.2). UserInfo accepts JSON of every
// media type except application/jwt: it does not support signed responses. All
// errors are *TokenError; the kind Rejected means that the server refused the
// access token.
func (c *Client) UserInfo(ctx context.Context, accessToken, subject string) (map[string]json.RawMessage, error) {
	ctx, cancel := c.withTimeout(ctx)
	defer cancel()
	if err := checkAccessToken(accessToken); err != nil {
		return nil, setupError(userInfoEndpoint, errors.New("the access token is not usable"))
	}
	u, err := c.endpoint(ctx, userInfoEndpoint)
	if err != nil {
		return nil, setupError(userInfoEndpoint, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, setupError(userInfoEndpoint, errors.New("userinfo_endpoint is not a URL"))
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Authorization", "Bearer "+accessToken)
	release, err := c.userInfoSlots.acquire(ctx, userInfoEndpoint)
	if err != nil {
		return nil, err
	}
	defer release()
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, &TokenError{Endpoint: userInfoEndpoint, Kind: Unavailable, Err: connError(err)}
	}
	defer resp.Body.Close()
	body, err := readBody(resp)
	switch {
	case errors.Is(err, errTooLarge):
		return nil, malformedError(userInfoEndpoint, resp.StatusCode, err)
	case err != nil:
		return nil, &TokenError{Endpoint: userInfoEndpoint, Kind: Unavailable, Status: resp.StatusCode, Err: connError(err)}
	case resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden:
		return nil, &TokenError{Endpoint: userInfoEndpoint, Kind: Rejected, Status: resp.StatusCode}
	case resp.StatusCode != http.StatusOK:
		return nil, responseError(userInfoEndpoint, response{
			status: resp.StatusCode, header: resp.Header, body: body, secrets: []string{accessToken},
		})
	}
	if mediaType, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); mediaType == "application/jwt" {
		return nil, malformedError(userInfoEndpoint, resp.StatusCode, errors.New("signed UserInfo is not supported"))
	}
	members, err := parseUserInfo(body, subject)
	if err != nil {
		return nil, malformedError(userInfoEndpoint, resp.StatusCode, err)
	}
	return members, nil
}

func parseUserInfo(body []byte, subject string) (map[string]json.RawMessage, error) {
	members, err := parseObject(body)
	if err != nil {
		return nil, err
	}
	sub, _ := stringMember(members, "sub")
	if sub == "" || len(sub) > maxSubject {
		return nil, errors.New("the response has no usable sub")
	}
	if subject != "" && sub != subject {
		return nil, errors.New("the response is about another subject")
	}
	return members, nil
}
