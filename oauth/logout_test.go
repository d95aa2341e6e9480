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
	long := strings.Repeat("x", maxIDTokenHint+1)
	for _, tc := range []struct {
		name                  string
		hint, redirect, state string
		want                  url.Values
	}{
		{"all", hint, "https://app.test/", "st", url.Values{
			"p": {"1"}, "id_token_hint": {hint}, "post_logout_redirect_uri": {"https://app.test/"}, "state": {"st"},
		}},
		{"no hint", "", "https://app.test/", "", url.Values{
			"p": {"1"}, "client_id": {testClient}, "post_logout_redirect_uri": {"https://app.test/"},
		}},
		{"hint too long", long, "", "st", url.Values{"p": {"1"}, "client_id": {testClient}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := s.client().EndSessionURL(testContext(t), tc.hint, tc.redirect, tc.state)
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
	if got, err := s.client().EndSessionURL(testContext(t), hint, "", ""); got != "" || err != nil {
		t.Errorf("without an endpoint: got %q, %v; want neither", got, err)
	}
	s.metadata["end_session_endpoint"] = "http://idp.test/logout"
	if got, err := s.client().EndSessionURL(testContext(t), hint, "", ""); err == nil {
		t.Errorf("http endpoint: got %q, want an error", got)
	}
	s.respond(wellKnown, 503, "")
	if _, err := s.client().EndSessionURL(testContext(t), hint, "", ""); !errors.Is(err, ErrMetadataUnavailable) {
		t.Errorf("without metadata: got error %v, want %v", err, ErrMetadataUnavailable)
	}
}
