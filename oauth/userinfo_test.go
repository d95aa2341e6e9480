package oauth

import (
	"errors"
	"net/http"
	"strings"
	"testing"
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
		{"signed", 200, `{"sub":"alice"}`, "application/jwt", "alice", Malformed},
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

func FuzzUserInfo(f *testing.F) {
	f.Add([]byte(`{"sub":"alice"}`), "alice")
	f.Add([]byte(`{"sub":"alice","sub":"eve"}`), "alice")
	f.Add([]byte(`{"sub":null}`), "")
	f.Fuzz(func(t *testing.T, body []byte, subject string) {
		got, err := parseUserInfo(body, subject)
		if err != nil {
			return
		}
		if sub, ok := stringMember(got, "sub"); !ok || sub == "" || subject != "" && sub != subject {
			t.Errorf("accepted %q for %q", body, subject)
		}
	})
}
