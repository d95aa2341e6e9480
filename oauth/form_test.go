package oauth

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const formMedia = "application/x-www-form-urlencoded"

// TestTokenResponseMayBeAForm if its media type says so.
func TestTokenResponseMayBeAForm(t *testing.T) {
	in := func(d time.Duration) time.Time { return sentAt.Add(d) }
	long := strings.Repeat("a", 60<<10)
	for _, tc := range []struct {
		name, media, body string
		want              *TokenResponse // nil: Malformed
	}{
		{"seed, GitHub", formMedia, "access_token=a&scope=repo%2Cgist&token_type=bearer", &TokenResponse{AccessToken: "a"}},
		{"charset", "Application/X-WWW-Form-Urlencoded; charset=utf-8", "access_token=a&expires_in=3600", &TokenResponse{AccessToken: "a", Expires: in(time.Hour)}},
		{"all members", formMedia, "access_token=a&refresh_token=b+c%2B%3D&id_token=x.y.z&expires_in=60&refresh_expires_in=1800&token_type=Bearer&scope=",
			&TokenResponse{AccessToken: "a", RefreshToken: "b c+=", IDToken: "x.y.z", Expires: in(time.Minute), RefreshExpires: in(30 * time.Minute)}},
		{"line break at the end", formMedia, "access_token=a\r\n", &TokenResponse{AccessToken: "a"}},
		{"long tokens", formMedia, "access_token=" + long + "&id_token=" + long, &TokenResponse{AccessToken: long, IDToken: long}},
		{"JSON with the media type of forms", formMedia, `{"access_token":"a"}`, &TokenResponse{AccessToken: "a"}},

		{"no media type", "", "access_token=a", nil},
		{"text", "text/plain", "access_token=a", nil},
		{"JSON", "application/json", "access_token=a", nil},
		{"token twice", formMedia, "access_token=a&access_token=b", nil},
		{"token twice, the same", formMedia, "access_token=a&access_token=a", nil},
		{"other name twice", formMedia, "access_token=a&scope=x&scope=y", nil},
		{"name twice, in other spellings", formMedia, "access_token=a&access%5Ftoken=b", nil},
		{"too many members", formMedia, "access_token=a" + strings.Repeat("&x=", maxFormMembers), nil},
		{"no member", formMedia, "", nil},
		{"no name", formMedia, "access_token", nil},
		{"wrong encoding", formMedia, "access_token=a&x=%zz", nil},
		{"line break in the token", formMedia, "access_token=a%0d%0aX-Admin:1", nil},
		{"space in the token", formMedia, "access_token=a+b", nil},
		{"too long", formMedia, "access_token=" + strings.Repeat("a", maxToken+1), nil},
		{"other type", formMedia, "access_token=a&token_type=mac", nil},
		{"page", formMedia, "<a href=x>welcome</a>", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := parseTokenResponse(response{status: 200, body: []byte(tc.body), sent: sentAt, header: http.Header{"Content-Type": {tc.media}}})
			if tc.want == nil {
				if kindOf(err) != Malformed || got != nil {
					t.Errorf("got %+v, %v; want Malformed", got, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			tc.want.Sent = sentAt
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	// A new refresh token is not lost, if it is clear which one it is.
	for body, want := range map[string]string{
		"access_token=a&access_token=b&refresh_token=r": "r",
		"access_token=a&refresh_token=r&refresh_token=": "",
		"refresh_token=r&token_type=bearer":             "r",
	} {
		got, err := parseTokenResponse(response{status: 200, body: []byte(body), sent: sentAt, header: http.Header{"Content-Type": {formMedia}}})
		if kindOf(err) != Malformed || want == "" && got != nil || want != "" && (got == nil || got.RefreshToken != want || got.AccessToken != "") {
			t.Errorf("%s: got %+v, %v; want Malformed and refresh token %q", body, got, err, want)
		}
	}
}

// TestRefusalMayBeAForm: its error counts as that of JSON does.
func TestRefusalMayBeAForm(t *testing.T) {
	for _, tc := range []struct {
		status      int
		media, body string
		kind        Kind
		code        string
	}{
		{400, formMedia, "error=invalid_grant&error_description=it+has+expired", Rejected, "invalid_grant"},
		{200, formMedia, "error=bad_verification_code&error_description=x", Unclear, "bad_verification_code"},
		{401, formMedia, "error=invalid_client", Misconfigured, "invalid_client"},
		{400, formMedia, "error=invalid_grant&error=invalid_request", Unavailable, ""},
		{400, formMedia, "error=invalid_grant&x=1&x=2", Unavailable, ""},
		{400, formMedia, "error=", Unavailable, ""},
		{400, formMedia, "<html>400 Bad Request</html>", Unavailable, ""},
		{400, "text/html", "error=invalid_grant", Unavailable, ""},
		{503, formMedia, "error=invalid_grant", Unavailable, "invalid_grant"},
	} {
		s := startServer(t)
		s.respond("/token", tc.status, tc.body, "Content-Type", tc.media)
		_, err := s.client().Refresh(testContext(t), testRefresh, nil)
		e, ok := err.(*TokenError)
		if !ok || e.Kind != tc.kind || e.Code != tc.code {
			t.Errorf("%d %s %s: got error %v, want %v with code %q", tc.status, tc.media, tc.body, err, tc.kind, tc.code)
		}
		checkNoSecret(t, err)
	}
}

// FuzzFormResponse: whatever a server sends as a form, the tokens are safe, and
// each was there once.
func FuzzFormResponse(f *testing.F) {
	for _, seed := range []string{
		"access_token=a&token_type=bearer&expires_in=60&refresh_token=r", "access_token=a&access_token=b", "error=invalid_grant&refresh_token=r",
		"access_token=%00", "a;b=c&access_token=x", "access_token=a&=&", "%61ccess_token=a",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := parseTokenResponse(response{status: 200, body: body, sent: sentAt, header: http.Header{"Content-Type": {formMedia}}})
		if err != nil {
			if kindOf(err) == 0 || len(err.Error()) > 1000 || !isPrintable(err.Error()) {
				t.Errorf("got error %q, want short printable ASCII", err)
			}
			return
		}
		if checkAccessToken(got.AccessToken) != nil || !isPrintable(got.RefreshToken+got.IDToken) {
			t.Errorf("got unsafe tokens %+v", got)
		}
		if members, _ := parseObject(body); members != nil {
			return
		}
		form, err := url.ParseQuery(strings.TrimSpace(string(body)))
		if err != nil || len(form["access_token"]) != 1 || len(form["refresh_token"]) > 1 || len(form["id_token"]) > 1 {
			t.Errorf("got tokens from the form %q, error %v", body, err)
		}
	})
}
