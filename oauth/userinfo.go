package oauth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// The values of Config.UserInfoMethod.
const (
	userInfoGet  = "get"
	userInfoPost = "post"
)

// signedUserInfo may be as large as an ID token with the same claims, and its base64 is
// a third larger than JSON.
var signedUserInfo = jwtKind{name: "UserInfo response", types: []string{"JWT"}, maxSize: 2 * maxToken}

// UserInfo requests the claims about the user from the UserInfo endpoint (OpenID
// Connect Core section 5.3). The response must have a sub, and that must equal
// subject unless subject is empty (section 5.3.2).
//
// A response with the media type application/jwt must be signed as ID tokens are. Its
// iss and aud may be missing, because it comes from the server over TLS; if they exist,
// they must be those of an ID token. The same holds for exp and nbf. A response with
// any other media type must be JSON.
//
// All errors are *TokenError; the kind Rejected means that the server refused the
// access token. ErrKeysUnavailable may be among the causes.
func (c *Client) UserInfo(ctx context.Context, accessToken, subject string) (map[string]json.RawMessage, error) {
	ctx, cancel := c.withTimeout(ctx)
	defer cancel()
	req, err := c.newUserInfoRequest(ctx, accessToken)
	if err != nil {
		return nil, setupError(userInfoEndpoint, err)
	}
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
			status: resp.StatusCode, header: resp.Header, body: body, secrets: []string{accessToken, url.QueryEscape(accessToken)},
		})
	}
	members, err := c.readUserInfo(ctx, resp.Header.Get("Content-Type"), body, subject)
	switch {
	case errors.Is(err, ErrKeysUnavailable):
		return nil, &TokenError{Endpoint: userInfoEndpoint, Kind: Unavailable, Status: resp.StatusCode, Err: err}
	case err != nil:
		return nil, malformedError(userInfoEndpoint, resp.StatusCode, err)
	}
	return members, nil
}

// newUserInfoRequest puts the access token into the Authorization header, or into the
// form of a POST (RFC 6750 sections 2.1 and 2.2).
func (c *Client) newUserInfoRequest(ctx context.Context, accessToken string) (*http.Request, error) {
	if err := checkAccessToken(accessToken); err != nil {
		return nil, errors.New("the access token is not usable")
	}
	u, err := c.endpoint(ctx, userInfoEndpoint)
	if err != nil {
		return nil, err
	}
	var req *http.Request
	if c.userInfoMethod == userInfoPost {
		form := url.Values{"access_token": {accessToken}}
		req, err = http.NewRequestWithContext(ctx, http.MethodPost, u, strings.NewReader(form.Encode()))
	} else {
		req, err = http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	}
	if err != nil {
		return nil, errors.New("userinfo_endpoint is not a URL")
	}
	req.Header.Set("Accept", "application/json, application/jwt")
	if req.Method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	} else {
		req.Header.Set("Authorization", "Bearer "+accessToken)
	}
	return req, nil
}

// readUserInfo reads a successful response, signed or plain.
func (c *Client) readUserInfo(ctx context.Context, contentType string, body []byte, subject string) (map[string]json.RawMessage, error) {
	var members map[string]json.RawMessage
	var err error
	if mediaType, _, _ := mime.ParseMediaType(contentType); mediaType == "application/jwt" {
		members, err = c.verifyUserInfo(ctx, strings.TrimSpace(string(body)))
	} else {
		members, err = parseObject(body)
	}
	if err != nil {
		return nil, err
	}
	if err := checkUserInfo(members, subject); err != nil {
		return nil, err
	}
	return members, nil
}

// verifyUserInfo returns the claims of a signed response.
func (c *Client) verifyUserInfo(ctx context.Context, raw string) (claims, error) {
	if c.issuer == "" {
		return nil, operatorError{errors.New("a signed UserInfo response needs the option issuer")}
	}
	_, p, err := c.verifySignature(ctx, raw, signedUserInfo, &c.loginKeys)
	if err != nil {
		return nil, err
	}
	if _, ok := p["iss"]; ok {
		if iss, _ := p.text("iss"); iss != c.issuer {
			return nil, fmt.Errorf("the signed UserInfo response names the issuer %s", quote(iss))
		}
	}
	if _, ok := p["aud"]; ok {
		if aud, err := p.GetAudience(); err != nil || !slices.Contains(aud, c.clientID) {
			return nil, errors.New("the signed UserInfo response is not for this client")
		}
	}
	if err := jwt.NewValidator(jwt.WithLeeway(leeway)).Validate(&p); err != nil {
		return nil, p.explain(err, c.issuer, time.Now())
	}
	return p, nil
}

// checkUserInfo refuses a response without a sub, or about another user.
func checkUserInfo(members map[string]json.RawMessage, subject string) error {
	sub, _ := stringMember(members, "sub")
	if sub == "" || len(sub) > maxSubject {
		return errors.New("the response has no usable sub")
	}
	if subject != "" && sub != subject {
		return errors.New("the response is about another subject")
	}
	return nil
}
