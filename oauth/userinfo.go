package oauth

import (
	"context"
	"encoding/json"
	"errors"
	"mime"
	"net/http"
)

// UserInfo asks the UserInfo endpoint for claims about the user (OpenID
// Connect Core section 5.3). The answer must have a sub, and it must equal
// subject unless that is empty (section 5.3.2). JSON is read whatever media
// type it has, except application/jwt: signed answers are not supported. All
// errors are *TokenError; Rejected means that the access token was refused.
func (c *Client) UserInfo(ctx context.Context, accessToken, subject string) (map[string]json.RawMessage, error) {
	ctx, cancel := c.bounded(ctx)
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
	release, err := c.userInfos.acquire(ctx, userInfoEndpoint)
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
		return nil, malformed(userInfoEndpoint, resp.StatusCode, err)
	case err != nil:
		return nil, &TokenError{Endpoint: userInfoEndpoint, Kind: Unavailable, Status: resp.StatusCode, Err: connError(err)}
	case resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden:
		return nil, &TokenError{Endpoint: userInfoEndpoint, Kind: Rejected, Status: resp.StatusCode}
	case resp.StatusCode != http.StatusOK:
		return nil, answerError(userInfoEndpoint, answer{
			status: resp.StatusCode, header: resp.Header, body: body, secrets: []string{accessToken},
		})
	}
	if mediaType, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); mediaType == "application/jwt" {
		return nil, malformed(userInfoEndpoint, resp.StatusCode, errors.New("signed UserInfo is not supported"))
	}
	members, err := parseUserInfo(body, subject)
	if err != nil {
		return nil, malformed(userInfoEndpoint, resp.StatusCode, err)
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
		return nil, errors.New("the answer has no usable sub")
	}
	if subject != "" && sub != subject {
		return nil, errors.New("the answer is about another subject")
	}
	return members, nil
}
