package oauth

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

var sentAt = time.Date(2026, 11, 22, 5, 0, 0, 0, time.UTC)

// TestTokenResponseIsReadLeniently reads the responses of real servers, and responses
// with defects. The access token is "a" in most.
func TestTokenResponseIsReadLeniently(t *testing.T) {
	in := func(d time.Duration) time.Time { return sentAt.Add(d) }
	jwtFor := func(claims string) string {
		return "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".sig"
	}
	withJWT := func(claims string) string { return `{"access_token":"` + jwtFor(claims) + `"}` }
	at := func(d time.Duration) int64 { return in(d).Unix() }
	tests := []struct {
		name string
		body string
		want *TokenResponse // nil: Malformed
	}{
		{"seed, OrderCloud", `{"access_token":"a","token_type":"bearer","expires_in":35999,"refresh_token":"878ca890-af6a-48b6"}`,
			&TokenResponse{AccessToken: "a", RefreshToken: "878ca890-af6a-48b6", Expires: in(35999 * time.Second)}},
		{"seed, Auth0", `{"access_token":"a","refresh_token":"G","token_type":"Bearer"}`,
			&TokenResponse{AccessToken: "a", RefreshToken: "G"}},
		{"seed, Pagero", `{"token_type":"bearer","access_token":"a","refresh_token":"_1X","scope":"","claims":"publicid","expires_in":600}`,
			&TokenResponse{AccessToken: "a", RefreshToken: "_1X", Expires: in(600 * time.Second)}},
		{"all members", `{"access_token":"a","token_type":"BEARER","id_token":"x.y.z","scope":"openid api:read","expires_in":60,"refresh_token":"r","refresh_expires_in":1800}`,
			&TokenResponse{AccessToken: "a", IDToken: "x.y.z", RefreshToken: "r", Expires: in(time.Minute), RefreshExpires: in(30 * time.Minute)}},
		{"other name for refresh life", `{"access_token":"a","refresh_expires_in":0,"refresh_token_expires_in":"1800"}`,
			&TokenResponse{AccessToken: "a", RefreshExpires: in(30 * time.Minute)}},
		{"names of the draft", `{"access_token":"a","refresh_token":"r","refresh_token_timeout":604800,"authorization_expires_in":259200}`,
			&TokenResponse{AccessToken: "a", RefreshToken: "r", RefreshExpires: in(72 * time.Hour)}},
		{"shortest refresh life", `{"access_token":"a","refresh_token_timeout":60,"authorization_expires_in":900,"refresh_expires_in":30,"refresh_token_expires_in":1800}`,
			&TokenResponse{AccessToken: "a", RefreshExpires: in(30 * time.Second)}},
		{"odd refresh lives", `{"access_token":"a","refresh_token_timeout":-1,"authorization_expires_in":"soon","refresh_expires_in":0,"refresh_token_expires_in":1e300}`,
			&TokenResponse{AccessToken: "a"}},
		{"byte order mark", "\xef\xbb\xbf" + `{"access_token":"a"}`, &TokenResponse{AccessToken: "a"}},
		{"white space around", " \n{\"access_token\":\"a\"}\r\n ", &TokenResponse{AccessToken: "a"}},
		{"type missing", `{"access_token":"a"}`, &TokenResponse{AccessToken: "a"}},
		{"type null", `{"access_token":"a","token_type":null}`, &TokenResponse{AccessToken: "a"}},
		{"error null", `{"access_token":"a","error":null}`, &TokenResponse{AccessToken: "a"}},
		{"error beside an access token", `{"access_token":"a","error":"invalid_grant"}`, nil},
		{"names differ in case", `{"Access_Token":"b","access_token":"a","TOKEN_TYPE":"mac"}`, &TokenResponse{AccessToken: "a"}},
		{"last of two wins", `{"access_token":"b","access_token":"a"}`, &TokenResponse{AccessToken: "a"}},
		{"invalid members do not affect others",
			`{"access_token":"a","id_token":7,"scope":["x"],"refresh_token":{},"expires_in":[],"refresh_expires_in":true}`,
			&TokenResponse{AccessToken: "a"}},
		{"refresh token with spaces", `{"access_token":"a","refresh_token":"b c+/=&%"}`, &TokenResponse{AccessToken: "a", RefreshToken: "b c+/=&%"}},
		{"refresh token with control", `{"access_token":"a","refresh_token":"b\u0000"}`, &TokenResponse{AccessToken: "a"}},
		{"token of 40 KiB", `{"access_token":"` + strings.Repeat("a", 40<<10) + `"}`, &TokenResponse{AccessToken: strings.Repeat("a", 40<<10)}},

		{"string", `{"access_token":"a","expires_in":"3600"}`, &TokenResponse{AccessToken: "a", Expires: in(time.Hour)}},
		{"string with space", `{"access_token":"a","expires_in":" 3600 "}`, &TokenResponse{AccessToken: "a", Expires: in(time.Hour)}},
		{"float", `{"access_token":"a","expires_in":3600.0}`, &TokenResponse{AccessToken: "a", Expires: in(time.Hour)}},
		{"float in string", `{"access_token":"a","expires_in":"3600.5"}`, &TokenResponse{AccessToken: "a", Expires: in(time.Hour + 500*time.Millisecond)}},
		{"exponent", `{"access_token":"a","expires_in":3.6e3}`, &TokenResponse{AccessToken: "a", Expires: in(time.Hour)}},
		{"ten years", `{"access_token":"a","expires_in":315360000}`, &TokenResponse{AccessToken: "a", Expires: in(maxLifetime)}},
		{"null", `{"access_token":"a","expires_in":null}`, &TokenResponse{AccessToken: "a"}},
		{"zero", `{"access_token":"a","expires_in":0}`, &TokenResponse{AccessToken: "a"}},
		{"negative", `{"access_token":"a","expires_in":-1}`, &TokenResponse{AccessToken: "a"}},
		{"nanoseconds", `{"access_token":"a","expires_in":5000000000}`, &TokenResponse{AccessToken: "a"}},
		{"1e12", `{"access_token":"a","expires_in":1e12}`, &TokenResponse{AccessToken: "a"}},
		{"1e400", `{"access_token":"a","expires_in":1e400}`, &TokenResponse{AccessToken: "a"}},
		{"word", `{"access_token":"a","expires_in":"never"}`, &TokenResponse{AccessToken: "a"}},
		{"NaN", `{"access_token":"a","expires_in":"NaN"}`, &TokenResponse{AccessToken: "a"}},
		{"Inf", `{"access_token":"a","expires_in":"Inf"}`, &TokenResponse{AccessToken: "a"}},
		{"empty", `{"access_token":"a","expires_in":""}`, &TokenResponse{AccessToken: "a"}},

		{"exp of a JWT", withJWT(fmt.Sprintf(`{"exp":%d}`, at(time.Hour))), &TokenResponse{Expires: in(time.Hour)}},
		{"expires_in before exp", fmt.Sprintf(`{"access_token":%q,"expires_in":60}`, jwtFor(fmt.Sprintf(`{"exp":%d}`, at(time.Hour)))), &TokenResponse{Expires: in(time.Minute)}},
		{"clock of the server ahead", withJWT(fmt.Sprintf(`{"iat":%d,"exp":%d}`, at(10*time.Minute), at(70*time.Minute))), &TokenResponse{Expires: in(time.Hour)}},
		{"token made before", withJWT(fmt.Sprintf(`{"iat":%d,"exp":%d}`, at(-50*time.Minute), at(10*time.Minute))), &TokenResponse{Expires: in(10 * time.Minute)}},
		{"exp in milliseconds", withJWT(fmt.Sprintf(`{"exp":%d}`, at(time.Hour)*1000)), &TokenResponse{}},
		{"exp in a hundred years", withJWT(fmt.Sprintf(`{"exp":%d}`, sentAt.AddDate(100, 0, 0).Unix())), &TokenResponse{}},
		{"exp as string", withJWT(`{"exp":"1"}`), &TokenResponse{}},
		{"exp overflows", withJWT(`{"exp":1e300}`), &TokenResponse{}},
		{"no JWT", `{"access_token":"..."}`, &TokenResponse{AccessToken: "..."}},

		{"mac", `{"access_token":"a","token_type":"mac"}`, nil},
		{"dpop", `{"access_token":"a","token_type":"DPoP"}`, nil},
		{"type is a number", `{"access_token":"a","token_type":1}`, nil},
		{"no access token", `{"token_type":"Bearer"}`, nil},
		{"empty access token", `{"access_token":""}`, nil},
		{"null access token", `{"access_token":null}`, nil},
		{"number", `{"access_token":7}`, nil},
		{"space", `{"access_token":"a b"}`, nil},
		{"line break", `{"access_token":"a\r\nX-Admin: 1"}`, nil},
		{"DEL", `{"access_token":"a\u007f"}`, nil},
		{"umlaut", `{"access_token":"ä"}`, nil},
		{"access token of 100 KiB", `{"access_token":"` + strings.Repeat("a", 100<<10) + `"}`, nil},
		{"nothing", ``, nil},
		{"html", `<html>welcome</html>`, nil},
		{"array", `[{"access_token":"a"}]`, nil},
		{"string body", `"a"`, nil},
		{"null body", `null`, nil},
		{"trailing garbage", `{"access_token":"a"}x`, nil},
		{"two objects", `{"access_token":"a"}{"access_token":"b"}`, nil},
		{"cut off", `{"access_token":"a"`, nil},
		{"form-encoded", `access_token=a&token_type=bearer`, nil},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			got, err := parseTokenResponse(response{status: 200, body: []byte(tc.body), sent: sentAt})
			if tc.want == nil {
				if kindOf(err) != Malformed || got != nil {
					t.Errorf("got %+v, %v; want Malformed", got, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if tc.want.AccessToken == "" {
				tc.want.AccessToken = got.AccessToken // a JWT
			}
			if !got.Expires.Equal(tc.want.Expires) {
				t.Errorf("got Expires %v, want %v", got.Expires, tc.want.Expires)
			}
			if got.Sent.IsZero() {
				t.Error("got zero Sent, want a time")
			}
			got.Expires, tc.want.Expires, got.Sent = time.Time{}, time.Time{}, time.Time{}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestErrorWithTokensIsMalformed: a response that contradicts itself does not prove the
// grant dead, and its refresh token is the newest.
func TestErrorWithTokensIsMalformed(t *testing.T) {
	for _, body := range []string{
		`{"access_token":"a","refresh_token":"r","error":"invalid_grant"}`,
		`{"refresh_token":"r","error":"invalid_grant"}`,
		`{"refresh_token":"r","error":"bad_refresh_token"}`,
	} {
		got, err := parseTokenResponse(response{status: 200, body: []byte(body), sent: sentAt})
		if kindOf(err) != Malformed || got == nil || got.RefreshToken != "r" || got.AccessToken != "" {
			t.Errorf("%s: got %+v, %v; want Malformed and the refresh token", body, got, err)
		}
	}
}

// TestTokensAreReadFromAnySuccess: the client accepts tokens with any status 2xx and any
// media type.
func TestTokensAreReadFromAnySuccess(t *testing.T) {
	for _, tc := range []struct {
		status int
		media  string
	}{{200, "text/html"}, {200, "text/plain"}, {200, ""}, {201, "application/json"}, {200, "text/javascript"}} {
		s := startServer(t)
		s.respond("/token", tc.status, goodTokens, "Content-Type", tc.media)
		before := time.Now()
		got, err := s.client().RedeemCode(testContext(t), testCode, testVerifier, testRedirect)
		if err != nil {
			t.Errorf("%d %s: got error %v", tc.status, tc.media, err)
			continue
		}
		if got.AccessToken != testAccess || got.Expires.Before(before.Add(600*time.Second)) || got.Expires.After(time.Now().Add(600*time.Second)) {
			t.Errorf("%d %s: got %+v, want the token with a lifetime of 600s", tc.status, tc.media, got)
		}
	}
	s := startServer(t)
	s.respond("/token", 204, "")
	if _, err := s.client().Refresh(testContext(t), testRefresh, nil); kindOf(err) != Malformed {
		t.Errorf("204: got error %v, want %v", err, Malformed)
	}
}

// TestExpiryCountsFromSending: the time until the response does not extend the lifetime
// of the token.
func TestExpiryCountsFromSending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := newSynctestServer(t)
		s.handle("/token", func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(7 * time.Second)
			_, _ = io.WriteString(w, goodTokens)
		})
		start := time.Now()
		got, err := c.Refresh(t.Context(), testRefresh, nil)
		if err != nil || !got.Expires.Equal(start.Add(600*time.Second)) {
			t.Errorf("got %+v, %v; want expiry 600s after the sending", got, err)
		}
	})
}

func FuzzTokenResponse(f *testing.F) {
	for _, seed := range []string{
		goodTokens, `{}`, `null`, `{"error":"invalid_grant","refresh_token":"r"}`,
		`{"access_token":"a","expires_in":"1e400","refresh_expires_in":1e400}`,
		`{"access_token":"e30.eyJleHAiOjE3MDAwMDAwMDB9.x","token_type":null}`,
		"\xef\xbb\xbf{\"access_token\":\"a\\r\\n\"}", `{"access_token":"a"}{}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := parseTokenResponse(response{status: 200, body: body, sent: sentAt})
		if err != nil {
			if kindOf(err) == 0 || len(err.Error()) > 1000 || !isPrintable(err.Error()) {
				t.Errorf("got error %q, want short printable ASCII", err)
			}
			if got != nil && (got.RefreshToken == "" || got.AccessToken != "" || got.IDToken != "") {
				t.Errorf("got %+v with an error, want a refresh token only", got)
			}
			return
		}
		if checkAccessToken(got.AccessToken) != nil || !isPrintable(got.RefreshToken+got.IDToken) {
			t.Errorf("got unsafe tokens %+v", got)
		}
		for _, e := range []time.Time{got.Expires, got.RefreshExpires} {
			if e.After(sentAt.Add(maxLifetime)) {
				t.Errorf("got expiry %v, want at most %v", e, sentAt.Add(maxLifetime))
			}
		}
		if !json.Valid(bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))) {
			t.Errorf("got tokens from invalid JSON %q", body)
		}
	})
}
