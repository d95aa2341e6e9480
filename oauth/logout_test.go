package oauth

import (
	"errors"
	"net/url"
	"strings"
	"testing"
)

func TestEndSessionURL(t *testing.T) {
	s := startServer(t)
	s.metadata["end_session_endpoint"] = s.issuer + "/logout?p=1"
	hint := s.idToken()
	long := strings.Repeat("x", MaxIDTokenHint+1)
	for _, tc := range []struct {
		name    string
		request LogoutRequest
		want    url.Values
	}{
		{"all", LogoutRequest{hint, "S1", "https://app.test/", "st"}, url.Values{
			"p": {"1"}, "id_token_hint": {hint}, "post_logout_redirect_uri": {"https://app.test/"}, "state": {"st"},
		}},
		{"no hint", LogoutRequest{PostLogoutRedirectURI: "https://app.test/"}, url.Values{
			"p": {"1"}, "client_id": {testClient}, "post_logout_redirect_uri": {"https://app.test/"},
		}},
		{"no ID token", LogoutRequest{LogoutHint: "S 1&x=y"}, url.Values{"p": {"1"}, "client_id": {testClient}, "logout_hint": {"S 1&x=y"}}},
		{"ID token too long", LogoutRequest{IDTokenHint: long, State: "st"}, url.Values{"p": {"1"}, "client_id": {testClient}}},
		{"ID token too long, with a hint", LogoutRequest{IDTokenHint: long, LogoutHint: "S1"}, url.Values{"p": {"1"}, "client_id": {testClient}, "logout_hint": {"S1"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := s.client().EndSessionURL(testContext(t), tc.request)
			if err != nil {
				t.Fatal(err)
			}
			u, err := url.Parse(got)
			if err != nil || !strings.HasPrefix(got, s.issuer+"/logout?") || u.Query().Encode() != tc.want.Encode() {
				t.Errorf("got %s, %v; want parameters %v", got, err, tc.want)
			}
		})
	}
	delete(s.metadata, "end_session_endpoint")
	if got, err := s.client().EndSessionURL(testContext(t), LogoutRequest{IDTokenHint: hint}); got != "" || err != nil {
		t.Errorf("without an endpoint: got %q, %v; want neither", got, err)
	}
	s.metadata["end_session_endpoint"] = "http://idp.test/logout"
	if got, err := s.client().EndSessionURL(testContext(t), LogoutRequest{IDTokenHint: hint}); err == nil {
		t.Errorf("http endpoint: got %q, want an error", got)
	}
	s.respond(wellKnown, 503, "")
	if _, err := s.client().EndSessionURL(testContext(t), LogoutRequest{IDTokenHint: hint}); !errors.Is(err, ErrMetadataUnavailable) {
		t.Errorf("without metadata: got error %v, want %v", err, ErrMetadataUnavailable)
	}
}
