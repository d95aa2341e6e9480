package oauth

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// FuzzTokenError: only invalid_grant proves a grant dead, and errors never repeat a
// secret of the request. The secrets do not change the kind of the error.
func FuzzTokenError(f *testing.F) {
	for _, tt := range []struct {
		status           int
		body, retryAfter string
	}{
		{400, `{"error":"invalid_grant","error_description":"Token ` + testRefresh + ` is expired"}`, ""},
		{403, `{"error":"invalid_grant"}`, "120"},
		{401, `{"error":"invalid_client","error":"invalid_grant"}`, "-1"},
		{400, `{"Error":"invalid_grant"}`, ""},
		{200, `{"error":"invalid_request","error_description":"a\r\nb\u001b[2J"}`, ""},
		{503, `{"error":"invalid_grant"}`, "Wed, 21 Oct 2065 07:28:00 GMT"},
		{429, "<html>" + testRefresh, "9223372036854775807"},
		{302, "", ""}, {400, "", ""}, {504, "", "30"}, {418, `{"error":["invalid_grant"]}`, "1e3"},
		{400, `{"error":"invalid_grant"}{"error":"server_error"}`, ""},
	} {
		f.Add(tt.status, []byte(tt.body), tt.retryAfter)
	}
	f.Fuzz(func(t *testing.T, status int, body []byte, after string) {
		if status < 200 || status > 599 {
			return // net/http refuses other statuses, and 1xx does not end a request
		}
		header := http.Header{"Retry-After": {after}}
		err := responseError(tokenEndpoint, response{status: status, header: header, body: body, secrets: []string{testRefresh}})
		text := err.Error()
		if !isPrintable(text) || len(text) > 1000 || strings.Contains(text, testRefresh) {
			t.Errorf("got error %q, want short printable ASCII", text)
		}
		if err.RetryAfter < 0 || err.RetryAfter > time.Hour || err.RetryAfter > 0 && err.Kind != Unavailable && err.Kind != TimedOut {
			t.Errorf("kind %v: got RetryAfter %v", err.Kind, err.RetryAfter)
		}
		members, _ := parseObject(body)
		code, _ := stringMember(members, "error")
		if dead := code == "invalid_grant" && status < 500 && status != 408 && status != 429 && status/100 != 3; dead != (err.Kind == Rejected) {
			t.Errorf("status %d with error %q: got kind %v", status, code, err.Kind)
		}
		if again := responseError(tokenEndpoint, response{status: status, header: header, body: body}); again.Kind != err.Kind {
			t.Errorf("without secrets: got kind %v, want %v", again.Kind, err.Kind)
		}
	})
}

// FuzzTokenLifetime: the lifetime that an access token claims counts for ten years
// at most, and never beyond its exp.
func FuzzTokenLifetime(f *testing.F) {
	f.Add([]byte(`{"exp":1700000600,"iat":1700000000}`))
	f.Add([]byte(`{"exp":1700000600,"iat":1700000599.9}`))
	f.Add([]byte(`{"exp":1e400}`))
	f.Add([]byte(`{"exp":253402300799,"iat":-0.0}`))
	f.Add([]byte(`{"exp":"1700000600","iat":null}`))
	f.Add([]byte(`{"exp":1,"iat":0}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		got := jwtExpiry("e30."+base64.RawURLEncoding.EncodeToString(payload)+".c2ln", sentAt)
		if got.IsZero() {
			return
		}
		if got.After(sentAt.Add(maxLifetime)) {
			t.Errorf("%s: got expiry %v, want at most %v", payload, got, sentAt.Add(maxLifetime))
		}
		members, err := parseObject(payload)
		exp, expErr := parseNumericDate(members["exp"])
		if err != nil || expErr != nil {
			t.Fatalf("%s: got expiry %v without a valid exp", payload, got)
		}
		if got.After(exp) && exp.After(sentAt) {
			t.Errorf("%s: got expiry %v, want at most %v", payload, got, exp)
		}
	})
}

// FuzzEndpointURL: an accepted URL of an endpoint is https or has a loopback host,
// and withQuery changes only its query.
func FuzzEndpointURL(f *testing.F) {
	for _, u := range []string{
		"https://idp.test/authorize?tenant=a%20b", "http://127.0.0.1:1/x", "http://localhost.evil.test/", "http://[::1]/", "https://a:b@idp.test/",
		"https://idp.test/#f", "https:idp.test", "https://169.254.169.254/", "https://[fe80::1%25eth0]/", "file:///etc/passwd", "https://idp.test:x/",
		"https://idp.test/?a=b&", "https://idp.test?", "HTTPS://IDP.test", "http://0/", "http://127.1/", "https://idp.test/\\@evil.test", "https://idp.test/?a=%zz",
	} {
		f.Add(u)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		if err := checkURL(raw); err != nil {
			if !isPrintable(err.Error()) || len(raw) > 20 && strings.Contains(err.Error(), raw) {
				t.Errorf("got error %q, want short printable ASCII", err)
			}
			return
		}
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatalf("accepted %q, which url.Parse refuses: %v", raw, err)
		}
		if u.User != nil || strings.Contains(raw, "#") {
			t.Errorf("accepted %q with user info or fragment", raw)
		}
		host := u.Hostname()
		if u.Scheme != "https" && !strings.EqualFold(host, "localhost") && !net.ParseIP(host).IsLoopback() {
			t.Fatalf("accepted %q without TLS to a remote host", raw)
		}
		if _, err := http.NewRequest(http.MethodPost, raw, nil); err != nil {
			t.Errorf("accepted %q, which net/http refuses: %v", raw, err)
		}
		full, err := withQuery(raw, url.Values{"state": {"a&b=c"}})
		if err != nil {
			t.Fatal(err)
		}
		got, err := url.Parse(full)
		if err != nil || got.Host != u.Host || got.Scheme != u.Scheme || got.EscapedPath() != u.EscapedPath() || got.Fragment != "" {
			t.Errorf("withQuery(%q): got %q, want only the query changed", raw, full)
		}
		if !strings.HasPrefix(got.RawQuery, u.RawQuery) || !strings.HasSuffix(got.RawQuery, "state=a%26b%3Dc") {
			t.Errorf("withQuery(%q): got %q, want the old query and the state", raw, full)
		}
	})
}

// FuzzCacheControl: freshFor stays within its bounds.
func FuzzCacheControl(f *testing.F) {
	for _, v := range []string{"max-age=60", "no-store", "public, MAX-AGE=\"7200\"", "max-age=99999999999999999999", "max-age=-1", "max-age", ",,=,", "s-maxage=1, max-age=86401"} {
		f.Add(v, "no-cache")
	}
	f.Fuzz(func(t *testing.T, first, second string) {
		if d := freshFor(http.Header{"Cache-Control": {first, second}}); d < minFresh || d > maxFresh {
			t.Errorf("%q, %q: got %v, want %v to %v", first, second, d, minFresh, maxFresh)
		}
	})
}

// FuzzPushedRequest: after a pushed authorization request the URL for the browser
// has client_id and the server's request_uri only, or there is an error.
func FuzzPushedRequest(f *testing.F) {
	s := newServer(f, "https://idp.test")
	s.metadata["pushed_authorization_request_endpoint"] = s.issuer + "/par"
	s.metadata["require_pushed_authorization_requests"] = true
	c := s.client()
	c.http.Transport = inProcess{s}
	f.Add(201, []byte(`{"request_uri":"urn:ietf:params:oauth:request_uri:x","expires_in":60}`))
	f.Add(200, []byte(`{"request_uri":"a&redirect_uri=https://evil.test"}`))
	f.Add(201, []byte(`{"request_uri":"a\r\nb"}`))
	f.Add(204, []byte(nil))
	f.Add(400, []byte(`{"error":"invalid_request","error_description":"`+testSecret+`"}`))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		if status < 200 || status > 599 {
			return
		}
		s.respond("/par", status, string(body))
		got, err := c.AuthorizationURL(t.Context(), AuthorizationRequest{
			RedirectURI: testRedirect, State: testStateValue, Nonce: testNonce, Verifier: testVerifier,
		})
		if err != nil {
			var tokenErr *TokenError
			if !errors.As(err, &tokenErr) {
				t.Errorf("got error of type %T, want *TokenError", err)
			}
			// The fuzzer makes parts of secrets, which sanitize need not redact.
			if bytes.Count(body, []byte(canary)) == bytes.Count(body, []byte(testSecret)) {
				checkNoSecret(t, err)
			}
			return
		}
		u, err := url.Parse(got)
		if err != nil || u.Host != "idp.test" || u.Path != "/authorize" {
			t.Fatalf("got URL %q, want the authorization endpoint", got)
		}
		q, err := url.ParseQuery(u.RawQuery)
		members, _ := parseObject(body)
		uri, _ := stringMember(members, "request_uri")
		if err != nil || len(q) != 3 || q.Get("client_id") != testClient || q.Get("request_uri") != uri || len(q["tenant"]) != 1 || uri == "" {
			t.Errorf("response %s: got URL %q, want client_id and request_uri only", body, got)
		}
	})
}

// FuzzJOSEHeader signs arbitrary headers: an accepted one names the key's algorithm,
// no other type and no extension.
func FuzzJOSEHeader(f *testing.F) {
	s := newServer(f, "https://idp.test")
	c := s.client()
	c.http.Transport = inProcess{s}
	for _, h := range []string{
		`{"alg":"ES256","kid":"a"}`, `{"alg":"ES256"}`, `{"alg":"ES256","typ":"JWT","kid":"a","jwk":{"kty":"EC"}}`, `{"alg":"none"}`, `{"alg":"HS256","kid":"a"}`,
		`{"alg":"ES256","crit":["exp"]}`, `{"alg":"ES256","crit":null}`, `{"alg":"ES256","typ":"logout+jwt"}`, `{"alg":"none","alg":"ES256"}`, `{"ALG":"none","alg":"ES256"}`,
		`{"alg":"ES256","kid":"b"}`, `{"alg":"ES256","kid":["a"]}`, `{"alg":"ES256","zip":"DEF"}`, `{"alg":"es256"}`, `{"alg":"ES384"}`, "\xef\xbb\xbf{\"alg\":\"ES256\"}", `{"alg":"ES256"} x`,
		`{"alg":"ES256","jku":"https://evil.test/","x5u":"https://evil.test/","typ":"jwt"}`,
	} {
		f.Add([]byte(h))
	}
	payload := must(json.Marshal(s.idClaims("exp", time.Now().Add(24*time.Hour).Unix())))
	f.Fuzz(func(t *testing.T, header []byte) {
		got, err := c.VerifyIDToken(t.Context(), signed(header, payload), IDTokenExpectation{Nonce: testNonce})
		if err != nil {
			if !isPrintable(err.Error()) || len(err.Error()) > 1000 {
				t.Errorf("got error %q, want short printable ASCII", err)
			}
			return
		}
		var m map[string]json.RawMessage
		if err := json.Unmarshal(header, &m); err != nil {
			t.Fatalf("accepted header %q, which is not JSON: %v", header, err)
		}
		alg, _ := stringMember(m, "alg")
		typ, _ := stringMember(m, "typ")
		kid, _ := stringMember(m, "kid")
		if _, crit := m["crit"]; crit || alg != "ES256" || typ != "" && !strings.EqualFold(typ, "JWT") || kid != "" && kid != "a" {
			t.Errorf("accepted header %q: %+v", header, got)
		}
	})
}

// signed makes a JWS of exactly these bytes, signed with key A and ES256.
func signed(header, payload []byte) string {
	text := base64.RawURLEncoding.EncodeToString(header) + "." + base64.RawURLEncoding.EncodeToString(payload)
	return text + "." + base64.RawURLEncoding.EncodeToString(must(jwt.SigningMethodES256.Sign(text, keyA())))
}

// emptyOr reports whether a claim is missing, empty or equal to want.
func emptyOr(want string, p map[string]json.RawMessage, name string) bool {
	got, _ := stringMember(p, name)
	return got == want || got == ""
}

// FuzzRefreshedClaims: an accepted ID token of a refresh belongs to the user who
// logged in, and ErrOtherLogin needs a claim that differs.
func FuzzRefreshedClaims(f *testing.F) {
	s := newServer(f, "https://idp.test")
	c := s.client()
	c.http.Transport = inProcess{s}
	authTime := time.Now().Add(-time.Hour).Truncate(time.Second)
	whole := s.idClaims("exp", time.Now().Add(24*time.Hour).Unix(), "auth_time", authTime.Unix())
	f.Add(must(json.Marshal(whole)))
	f.Add(must(json.Marshal(edit(whole, "nonce", nil, "auth_time", 0))))
	f.Add(must(json.Marshal(edit(whole, "sub", "eve"))))
	f.Add(must(json.Marshal(edit(whole, "SUB", "alice", "sub", nil))))
	f.Add(must(json.Marshal(edit(whole, "nonce", "other"))))
	f.Add([]byte(strings.Replace(string(must(json.Marshal(whole))), `"sub":"alice"`, `"sub":"eve","sub":"alice"`, 1)))
	f.Fuzz(func(t *testing.T, payload []byte) {
		got, err := c.VerifyRefreshedIDToken(t.Context(), signPayload(string(payload)), RefreshedIDTokenExpectation{Subject: "alice", Nonce: testNonce, AuthTime: authTime})
		if err != nil {
			p, _ := parseObject(payload)
			aud, _ := claims(p).GetAudience()
			if errors.Is(err, ErrOtherLogin) && emptyOr(s.issuer, p, "iss") && emptyOr("alice", p, "sub") && emptyOr(testNonce, p, "nonce") &&
				emptyOr(testClient, p, "azp") && slices.Contains(aud, testClient) {
				t.Errorf("%q: got %v, want another error", payload, err)
			}
			if !isPrintable(err.Error()) || len(err.Error()) > 1000 {
				t.Errorf("got error %q, want short printable ASCII", err)
			}
			return
		}
		issuer, _ := stringMember(got.Claims, "iss")
		if got.Subject != "alice" || issuer != s.issuer || !got.AuthTime.IsZero() && got.AuthTime.Before(authTime) {
			t.Errorf("accepted %s: %+v", payload, got)
		}
		if nonce, _ := claims(got.Claims).text("nonce"); nonce != "" && nonce != testNonce {
			t.Errorf("accepted nonce %q, want %q or none", nonce, testNonce)
		}
	})
}
