package oauth

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

func TestUserInfoMustBeAboutSubject(t *testing.T) {
	tests := []struct {
		name    string
		status  int
		body    string
		media   string
		subject string
		want    Kind // 0 = accepted
	}{
		{"good", 200, `{"sub":"alice","email":"a@b"}`, "application/json", "alice", 0},
		{"no subject to compare", 200, `{"sub":"bob","email":"a@b"}`, "application/json", "", 0},
		{"as text", 200, `{"sub":"alice","email":"a@b"}`, "text/plain; charset=utf-8", "alice", 0},
		{"without type", 200, "\xef\xbb\xbf" + `{"sub":"alice","email":"a@b"}`, "", "alice", 0},
		{"other sub", 200, `{"sub":"eve"}`, "application/json", "alice", Malformed},
		{"sub in another case", 200, `{"sub":"Alice"}`, "application/json", "alice", Malformed},
		{"Sub", 200, `{"Sub":"alice"}`, "application/json", "alice", Malformed},
		{"no sub", 200, `{"email":"a@b"}`, "application/json", "", Malformed},
		{"empty sub", 200, `{"sub":""}`, "application/json", "", Malformed},
		{"sub as number", 200, `{"sub":7}`, "application/json", "", Malformed},
		{"long sub", 200, `{"sub":"` + strings.Repeat("s", 256) + `"}`, "application/json", "", Malformed},
		{"html", 200, `<html>`, "text/html", "", Malformed},
		{"JSON that is called signed", 200, `{"sub":"alice"}`, "application/jwt", "alice", Malformed},
		{"list", 200, `[{"sub":"alice"}]`, "application/json", "", Malformed},
		{"trailing", 200, `{"sub":"alice"}{"sub":"eve"}`, "application/json", "alice", Malformed},
		{"other success", 202, `{"sub":"alice"}`, "application/json", "alice", Unavailable},
		{"401", 401, `{"error":"invalid_token"}`, "application/json", "alice", Rejected},
		{"403, zitadel", 403, ``, "", "alice", Rejected},
		{"404", 404, ``, "", "alice", Misconfigured},
		{"502", 502, `<html>`, "text/html", "alice", Unavailable},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			s := startServer(t)
			var sent string
			s.handle("/userinfo", func(w http.ResponseWriter, r *http.Request) {
				sent = r.Header.Get("Authorization")
				w.Header().Set("Content-Type", tc.media)
				w.WriteHeader(tc.status)
				_, _ = w.Write([]byte(tc.body))
			})
			got, err := s.client().UserInfo(testContext(t), testAccess, tc.subject)
			if sent != "Bearer "+testAccess {
				t.Errorf("got Authorization %q, want the access token", sent)
			}
			if tc.want == 0 {
				if err != nil || string(got["email"]) != `"a@b"` {
					t.Errorf("got %s, %v; want the claims", got, err)
				}
				return
			}
			if kindOf(err) != tc.want || got != nil {
				t.Errorf("got %s, %v; want %v", got, err, tc.want)
			}
			checkNoSecret(t, err)
		})
	}
	t.Run("token that is invalid in a header", func(t *testing.T) {
		s := startServer(t)
		for _, token := range []string{canary + "\r\nX: y", canary + " x", ""} {
			if _, err := s.client().UserInfo(testContext(t), token, ""); kindOf(err) != Misconfigured || s.count("/userinfo") != 0 {
				t.Errorf("%q: got error %v, want %v and no request", token, err, Misconfigured)
			}
		}
	})
	t.Run("no endpoint", func(t *testing.T) {
		s := startServer(t)
		delete(s.metadata, "userinfo_endpoint")
		if _, err := s.client().UserInfo(testContext(t), testAccess, ""); !errors.Is(err, ErrNoEndpoint) {
			t.Errorf("got error %v, want %v", err, ErrNoEndpoint)
		}
	})
}

// TestUserInfoIsAskedByPost: the access token goes into the form, and nowhere else (RFC
// 6750 section 2.2).
func TestUserInfoIsAskedByPost(t *testing.T) {
	s := startServer(t)
	s.handle("/userinfo", func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || r.Header.Get("Authorization") != "" || r.URL.RawQuery != "" ||
			r.Header.Get("Content-Type") != "application/x-www-form-urlencoded" || r.PostFormValue("access_token") != testAccess {
			t.Errorf("got %s %s with header %v", r.Method, r.URL, r.Header)
		}
		writeJSON(w, map[string]string{"sub": "alice"})
	})
	c := s.client(func(c *Config) { c.UserInfoMethod = "post" })
	if got, err := c.UserInfo(testContext(t), testAccess, "alice"); err != nil || string(got["sub"]) != `"alice"` {
		t.Errorf("got %s, %v; want the claims", got, err)
	}
	s.respond("/userinfo", 302, "", "Location", s.issuer+"/elsewhere")
	if _, err := c.UserInfo(testContext(t), testAccess, "alice"); err == nil || s.count("/elsewhere") != 0 {
		t.Errorf("redirect: got error %v and %d requests elsewhere, want an error alone", err, s.count("/elsewhere"))
	}
}

// TestUserInfoErrorsHideTheFormOfTheRequest: a server may repeat the body of a POST, where
// the access token is encoded.
func TestUserInfoErrorsHideTheFormOfTheRequest(t *testing.T) {
	for _, token := range []string{canary + "+/==", canary + "%41&=;", "a=" + canary} {
		s := startServer(t)
		s.handle("/userinfo", func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			w.WriteHeader(http.StatusBadRequest)
			writeJSON(w, map[string]string{"error": "invalid_request", "error_description": "cannot read " + string(body)})
		})
		_, err := s.client(func(c *Config) { c.UserInfoMethod = "post" }).UserInfo(testContext(t), token, "alice")
		if err == nil || !strings.Contains(err.Error(), "[redacted]") {
			t.Errorf("got error %v, want the description without the token", err)
		}
		checkNoSecret(t, err)
	}
}

// TestSignedUserInfoIsVerified: a signed response needs the registered algorithm, a key
// of the server and the right user. Its other claims are checked if they exist.
func TestSignedUserInfoIsVerified(t *testing.T) {
	s := startServer(t)
	s.setKeys(publicJWK(keyA(), "a"), publicJWK(rsaKey(), "r"))
	in := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	claims := func(change ...any) map[string]any {
		return edit(map[string]any{"sub": "alice", "email": "a@b", "iss": s.issuer, "aud": testClient}, change...)
	}
	signed := func(change ...any) string { return sign(jwt.SigningMethodES256, keyA(), claims(change...), "kid", "a") }
	tests := []struct {
		name string
		body string
		want string // in the error; "" = accepted
	}{
		{"good", signed(), ""},
		{"white space around it", " " + signed() + "\r\n", ""},
		{"no iss and aud", signed("iss", nil, "aud", nil), ""},
		{"list of audiences", signed("aud", []string{"other", testClient}), ""},
		{"with times", signed("iat", in(0), "exp", in(time.Minute), "nbf", in(0)), ""},
		{"expired within the leeway", signed("exp", in(-45*time.Second)), ""},
		{"large", signed("groups", strings.Repeat("x", 90<<10)), ""},
		{"other user", signed("sub", "eve"), "another subject"},
		{"no sub", signed("sub", nil), "no usable sub"},
		{"other iss", signed("iss", "https://evil.test"), `issuer "https://evil.test"`},
		{"iss null", signed("iss", json.RawMessage("null")), "issuer"},
		{"other aud", signed("aud", "other"), "not for this client"},
		{"aud of a wrong type", signed("aud", 7), "not for this client"},
		{"expired", signed("exp", in(-time.Hour)), "expired"},
		{"not valid yet", signed("nbf", in(time.Hour)), "valid in"},
		{"other key", sign(jwt.SigningMethodES256, keyB(), claims(), "kid", "a"), "signature"},
		{"unknown kid", sign(jwt.SigningMethodES256, keyB(), claims(), "kid", "x"), "no key"},
		{"other algorithm", sign(jwt.SigningMethodRS256, rsaKey(), claims(), "kid", "r"), "UserInfo response is signed with RS256"},
		{"HMAC", sign(jwt.SigningMethodHS256, []byte(testSecret), claims(), "kid", "a"), "not allowed"},
		{"unsigned", forge(`{"alg":"none"}`, claims(), ""), "not allowed"},
		{"access token", sign(jwt.SigningMethodES256, keyA(), claims(), "kid", "a", "typ", "at+jwt"), "type"},
		{"encrypted", "a.b.c.d.e", "userinfo_encrypted_response_alg"},
		{"too large", signed("groups", strings.Repeat("x", 2*maxToken)), "larger than"},
		{"empty", "", "not a signed JWT"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			s.respond("/userinfo", 200, tc.body, "Content-Type", "application/jwt; charset=utf-8")
			got, err := s.client().UserInfo(testContext(t), testAccess, "alice")
			checkNoSecret(t, err)
			if tc.want == "" {
				if err != nil || string(got["email"]) != `"a@b"` {
					t.Errorf("got %s, %v; want the claims", got, err)
				}
				return
			}
			if kindOf(err) != Malformed || got != nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %s, %v; want an error with %q", got, err, tc.want)
			}
		})
	}
	t.Run("keys not available", func(t *testing.T) {
		s.respond("/userinfo", 200, signed(), "Content-Type", "application/jwt")
		s.respond("/jwks", 503, "")
		if _, err := s.client().UserInfo(testContext(t), testAccess, "alice"); kindOf(err) != Unavailable || !errors.Is(err, ErrKeysUnavailable) {
			t.Errorf("got error %v, want %v", err, ErrKeysUnavailable)
		}
	})
	t.Run("plain OAuth 2.0", func(t *testing.T) {
		c := s.client(func(c *Config) {
			c.Issuer, c.Endpoints = "", Endpoints{Authorization: s.issuer + "/a", Token: s.issuer + "/t", UserInfo: s.issuer + "/userinfo", JWKS: s.issuer + "/jwks"}
		})
		if _, err := c.UserInfo(testContext(t), testAccess, ""); !NeedsOperator(err) || !strings.Contains(err.Error(), "option issuer") {
			t.Errorf("got error %v, want one that names the option issuer", err)
		}
	})
}

func FuzzUserInfo(f *testing.F) {
	f.Add([]byte(`{"sub":"alice"}`), "alice")
	f.Add([]byte(`{"sub":"alice","sub":"eve"}`), "alice")
	f.Add([]byte(`{"sub":null}`), "")
	f.Fuzz(func(t *testing.T, body []byte, subject string) {
		got, err := parseObject(body)
		if err != nil || checkUserInfo(got, subject) != nil {
			return
		}
		if sub, ok := stringMember(got, "sub"); !ok || sub == "" || subject != "" && sub != subject {
			t.Errorf("accepted %q for %q", body, subject)
		}
	})
}
