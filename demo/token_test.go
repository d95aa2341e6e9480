package main

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
)

// jwt returns a token with an invalid signature.
func jwt(header, payload string) string {
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(header)) + "." + encode([]byte(payload)) + ".c2ln"
}

func TestDecodeShowsJWTsOnly(t *testing.T) {
	for _, tc := range []struct {
		name, token string
		want        *decoded
	}{
		{"full", jwt(`{"alg":"RS256"}`, `{"iat":100,"exp":130}`), &decoded{"{\n  \"alg\": \"RS256\"\n}", "{\n  \"iat\": 100,\n  \"exp\": 130\n}", 100, 130}},
		{"fractions", jwt(`{}`, `{"exp":130.9}`), &decoded{"{}", "{\n  \"exp\": 130.9\n}", 0, 130}},
		{"times of a wrong type", jwt(`{}`, `{"iat":"x","exp":130}`), &decoded{"{}", "{\n  \"iat\": \"x\",\n  \"exp\": 130\n}", 0, 0}},
		{"empty", "", nil},
		{"opaque", "2YotnFZFEjr1zCsicMWpAA", nil},
		{"not base64url", "e30.e+/=.c2ln", nil},
		{"not an object", jwt(`{}`, `[1]`), nil},
		{"not JSON", jwt(`{`, `{}`), nil},
		{"five parts, like a JWE", jwt(`{}`, `{}`) + ".a.b", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := decode(tc.token)
			if (got == nil) != (tc.want == nil) || got != nil && *got != *tc.want {
				t.Errorf("got %+v, want %+v", got, tc.want)
			}
		})
	}
}

func TestLifetimeNeedsBothTimes(t *testing.T) {
	for _, tc := range []struct {
		d    decoded
		want string
	}{
		{decoded{IssuedAt: 100, Expires: 130}, "30s"},
		{decoded{Expires: 130}, ""},
		{decoded{IssuedAt: 100}, ""},
	} {
		if got := tc.d.Lifetime(); got != tc.want {
			t.Errorf("%+v: got %q, want %q", tc.d, got, tc.want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add("opaque")
	f.Add(jwt(`{"alg":"RS256"}`, `{"iat":100,"exp":1e300}`))
	f.Fuzz(func(t *testing.T, token string) {
		got := decode(token)
		if got == nil {
			return
		}
		if !json.Valid([]byte(got.Header)) || !json.Valid([]byte(got.Payload)) || strings.Count(token, ".") != 2 {
			t.Errorf("got %+v, want JSON from a token of three parts", got)
		}
	})
}
