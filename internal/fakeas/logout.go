package fakeas

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// endSession serves OpenID Connect RP-Initiated Logout 1.0 without asking the
// user for confirmation. Families with offline_access survive.
func (s *Server) endSession(c *call) answer {
	hint := s.findIDToken(c.form.Get("id_token_hint"))
	switch {
	case c.form.Has("id_token_hint") && hint == nil:
		return page(http.StatusBadRequest, "id_token_hint is not an ID token of this server")
	case hint == nil && c.knobs.EndSessionNeedsHint:
		return page(http.StatusBadRequest, "id_token_hint is required")
	}
	id := c.form.Get("client_id")
	if hint != nil {
		if id != "" && id != hint.ClientID {
			return page(http.StatusBadRequest, "client_id is not that of the id_token_hint")
		}
		id = hint.ClientID
	}
	client, _ := s.client(id)
	c.entry.ClientID = client.ID
	uri := c.form.Get("post_logout_redirect_uri")
	if uri != "" && !slices.Contains(client.PostLogoutRedirectURIs, uri) {
		return page(http.StatusBadRequest, "post_logout_redirect_uri is not registered for this client")
	}
	if hint != nil {
		s.endLogin(hint.family)
	}
	if uri == "" {
		return page(http.StatusOK, "signed out")
	}
	v := url.Values{}
	if c.form.Has("state") {
		v.Set("state", c.form.Get("state"))
	}
	return redirect(addQuery(uri, v))
}

// findIDToken returns an ID token of this server, expired or not, or nil.
func (s *Server) findIDToken(token string) *secret {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ledger.find(KindID, token)
}

func (s *Server) endLogin(f *family) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(f.scope, "offline_access") {
		s.ledger.revoke(f, KindRefresh, KindAccess)
	}
}

// cognitoLogout serves the logout endpoint of Amazon Cognito. It takes client_id
// and logout_uri, neither a hint nor a state, and is not in the metadata.
func (s *Server) cognitoLogout(c *call) answer {
	client, ok := s.client(c.form.Get("client_id"))
	uri := c.form.Get("logout_uri")
	if !ok || !slices.Contains(client.PostLogoutRedirectURIs, uri) {
		return page(http.StatusBadRequest, "client_id and a registered logout_uri are required")
	}
	c.entry.ClientID = client.ID
	return redirect(uri)
}

// logoutEvent is the required member of events in a logout token.
const logoutEvent = "http://schemas.openid.net/event/backchannel-logout"

// Logout describes a logout token. Either Subject or SessionID may be empty.
type Logout struct {
	ClientID  string    `json:"client_id"`
	Subject   string    `json:"sub"`
	SessionID string    `json:"sid"`
	Edit      TokenEdit `json:"edit"`
}

// LogoutToken returns a logout token (OpenID Connect Back-Channel Logout 1.0,
// section 2.4), edited by l.Edit.
func (s *Server) LogoutToken(l Logout) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	claims := map[string]any{
		"iss": s.issuer(s.knobs), "aud": l.ClientID, "jti": canary("jti_"),
		"iat": s.knobs.stamp(now), "exp": s.knobs.stamp(now.Add(2 * time.Minute)),
		"events": map[string]any{logoutEvent: map[string]any{}},
	}
	if l.Subject != "" {
		claims["sub"] = l.Subject
	}
	if l.SessionID != "" {
		claims["sid"] = l.SessionID
	}
	token, err := s.sign(s.knobs, "logout+jwt", claims, &family{client: s.clients[l.ClientID]}, "", l.Edit)
	if err == nil {
		s.ledger.logoutTokens = append(s.ledger.logoutTokens, token)
	}
	return token, err
}

// SendLogout posts a logout token to the client's BackchannelLogoutURI and
// returns the status of the answer.
func (s *Server) SendLogout(ctx context.Context, httpClient *http.Client, clientID, token string) (int, error) {
	client, ok := s.client(clientID)
	if !ok || client.BackchannelLogoutURI == "" {
		return 0, fmt.Errorf("client %q has no back-channel logout URI", clientID)
	}
	form := url.Values{"logout_token": {token}}.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, client.BackchannelLogoutURI, strings.NewReader(form))
	if err != nil {
		return 0, fmt.Errorf("making the logout request: %w", err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := httpClient.Do(req)
	if err != nil {
		return 0, fmt.Errorf("sending the logout token: %w", err)
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, maxBody))
	return resp.StatusCode, err
}
