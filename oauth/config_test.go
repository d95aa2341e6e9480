package oauth

import (
	"errors"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestNewRefuses(t *testing.T) {
	oidc := Config{Issuer: "https://idp.test", ClientID: "app"}
	plain := Config{ClientID: "app", Endpoints: Endpoints{Authorization: "https://idp.test/a", Token: "https://idp.test/t"}}
	tests := []struct {
		name   string
		base   Config
		change func(*Config)
		want   string // in the error; "" = accepted
	}{
		{"openid", oidc, func(*Config) {}, ""},
		{"plain", plain, func(*Config) {}, ""},
		{"no client", oidc, func(c *Config) { c.ClientID = "" }, "client_id"},
		{"client with newline", oidc, func(c *Config) { c.ClientID = "a\nb" }, "client_id"},
		{"no token endpoint", plain, func(c *Config) { c.Endpoints.Token = "" }, "token_endpoint is missing"},
		{"no authorization endpoint", plain, func(c *Config) { c.Endpoints.Authorization = "" }, "authorization_endpoint is missing"},
		{"discovery without issuer", plain, func(c *Config) { c.DiscoveryURL = "https://idp.test/d" }, "discovery_url needs issuer"},
		{"http issuer", oidc, func(c *Config) { c.Issuer = "http://idp.test" }, "issuer: must be https"},
		{"http loopback issuer", oidc, func(c *Config) { c.Issuer = "http://127.3.0.1:99/x" }, ""},
		{"http ipv6 loopback issuer", oidc, func(c *Config) { c.Issuer = "http://[::1]:99" }, ""},
		{"http localhost issuer", oidc, func(c *Config) { c.Issuer = "http://localhost:99" }, ""},
		{"http name like localhost", oidc, func(c *Config) { c.Issuer = "http://localhost.evil.test" }, "issuer: must be https"},
		{"http name like loopback", oidc, func(c *Config) { c.Issuer = "http://127.0.0.1.evil.test" }, "issuer: must be https"},
		{"issuer with query", oidc, func(c *Config) { c.Issuer = "https://idp.test?x=1" }, "issuer: must not have a query"},
		{"issuer with fragment", oidc, func(c *Config) { c.Issuer = "https://idp.test#" }, "issuer: must not have a fragment"},
		{"issuer without scheme", oidc, func(c *Config) { c.Issuer = "idp.test" }, "issuer: must be a URL with a host"},
		{"issuer with password", oidc, func(c *Config) { c.Issuer = "https://u:" + canary + "@idp.test" }, "issuer: must not hold a user name"},
		{"unparsable with password", oidc, func(c *Config) { c.Issuer = "https://u:" + canary + "@idp.test:port" }, "issuer: is not a URL"},
		{"file endpoint", plain, func(c *Config) { c.Endpoints.UserInfo = "file:///etc/passwd" }, "userinfo_endpoint: "},
		{"link-local endpoint", plain, func(c *Config) { c.Endpoints.Revocation = "https://169.254.169.254/" }, "revocation_endpoint: must not be a link-local"},
		{"mapped link-local", plain, func(c *Config) { c.Endpoints.JWKS = "https://[::ffff:169.254.169.254]/" }, "jwks_uri: must not be a link-local"},
		{"http discovery", oidc, func(c *Config) { c.DiscoveryURL = "http://idp.test/d" }, "discovery_url: must be https"},
		{"endpoint with query", plain, func(c *Config) { c.Endpoints.Token = "https://idp.test/t?p=1" }, ""},
		{"secret without method", oidc, func(c *Config) { c.ClientSecret = secret }, ""},
		{"secret with none", oidc, func(c *Config) { c.ClientSecret, c.AuthMethod = secret, "none" }, "token_endpoint_auth_method is none"},
		{"basic without secret", oidc, func(c *Config) { c.AuthMethod = "client_secret_basic" }, "needs client_secret"},
		{"post without secret", oidc, func(c *Config) { c.AuthMethod = "client_secret_post" }, "needs client_secret"},
		{"unsupported method", oidc, func(c *Config) { c.AuthMethod = "tls_client_auth" }, "tls_client_auth is not supported yet"},
		{"private_key_jwt without a key", oidc, func(c *Config) { c.AuthMethod = "private_key_jwt" }, "private_key_jwt needs client_key"},
		{"private_key_jwt with a secret", oidc, func(c *Config) {
			c.AuthMethod, c.ClientKeyFile, c.ClientSecret = "private_key_jwt", "/k", secret
		}, "client_secret is set, but token_endpoint_auth_method is private_key_jwt"},
		{"secret and key without a method", oidc, func(c *Config) { c.ClientKeyFile, c.ClientSecret = "/k", secret }, "client_secret and client_key are both set"},
		{"client_secret_jwt without a secret", oidc, func(c *Config) { c.AuthMethod = "client_secret_jwt" }, "client_secret_jwt needs client_secret"},
		{"client_secret_jwt", oidc, func(c *Config) { c.AuthMethod, c.ClientSecret = "client_secret_jwt", secret }, ""},
		{"client_secret_jwt with a short secret", oidc, func(c *Config) {
			c.AuthMethod, c.ClientSecret = "client_secret_jwt", func() (string, error) { return canary, nil }
		}, "client_secret: client_secret_jwt needs a secret of at least 32 bytes"},
		{"client_secret_jwt without an issuer", plain, func(c *Config) { c.AuthMethod, c.ClientSecret = "client_secret_jwt", secret }, "client_secret_jwt needs issuer"},
		{"client_secret_jwt for the token endpoint", plain, func(c *Config) {
			c.AuthMethod, c.ClientSecret, c.AssertionAudience = "client_secret_jwt", secret, "token_endpoint"
		}, ""},
		{"unknown assertion_audience", oidc, func(c *Config) {
			c.AuthMethod, c.ClientSecret, c.AssertionAudience = "client_secret_jwt", secret, "both"
		}, `assertion_audience "both" is unknown`},
		{"assertion_audience without assertions", oidc, func(c *Config) { c.ClientSecret, c.AssertionAudience = secret, "issuer" }, "assertion_audience needs"},
		{"client_assertion without a file", oidc, func(c *Config) { c.AuthMethod = "client_assertion" }, "client_assertion needs client_assertion"},
		{"client_assertion with another method", oidc, func(c *Config) {
			c.AuthMethod, c.ClientAssertion = "none", ClientAssertion{File: "/f"}
		}, "client_assertion is set, but token_endpoint_auth_method is none"},
		{"client_assertion with a secret", oidc, func(c *Config) { c.ClientSecret, c.ClientAssertion = secret, ClientAssertion{File: "/f"} }, "client_secret is set, but"},
		{"content in place of a key file", oidc, func(c *Config) { c.ClientKeyFile = `{"kty":"EC","d":"` + canary + `"}` }, "client_key: give the path"},
		{"PEM in place of a key file", oidc, func(c *Config) { c.ClientKeyFile = "-----BEGIN PRIVATE KEY-----\n" + canary }, "client_key: give the path"},
		{"JWT in place of a file", oidc, func(c *Config) { c.ClientAssertion = ClientAssertion{File: "eyJhbGciOiJ9.e30." + canary} }, "client_assertion: give the path"},
		{"lines in place of a file", oidc, func(c *Config) { c.ClientAssertion = ClientAssertion{File: "a\n" + canary} }, "client_assertion: give the path"},
		{"client_assertion of an odd type", oidc, func(c *Config) { c.ClientAssertion = ClientAssertion{File: "/f", Type: "a b"} }, "client_assertion: the type"},
		{"unknown method", oidc, func(c *Config) { c.AuthMethod = "basic" }, `"basic" is unknown`},
		{"openid without issuer", plain, func(c *Config) { c.Scopes = []string{"openid"} }, "scope openid needs issuer"},
		{"two scopes in one element", oidc, func(c *Config) { c.Scopes = []string{"openid email"} }, "scope"},
		{"empty scope", oidc, func(c *Config) { c.Scopes = []string{""} }, "scope"},
		{"resource with fragment", oidc, func(c *Config) { c.Resources = []string{"https://api.test/#x"} }, "resource"},
		{"relative resource", oidc, func(c *Config) { c.Resources = []string{"/api"} }, "resource"},
		{"urn resource", oidc, func(c *Config) { c.Resources = []string{"urn:api"} }, ""},
		{"authorize_param state", oidc, func(c *Config) { c.AuthorizeParams = []Param{{"state", canary}} }, "authorize_param state"},
		{"authorize_param prompt", oidc, func(c *Config) { c.AuthorizeParams = []Param{{"prompt", "consent"}} }, ""},
		{"authorize_param response_mode", oidc, func(c *Config) { c.AuthorizeParams = []Param{{"response_mode", "form_post"}} }, "use the option response_mode query|form_post"},
		{"response_mode query", oidc, func(c *Config) { c.ResponseMode = "query" }, ""},
		{"response_mode form_post", oidc, func(c *Config) { c.ResponseMode = "form_post" }, ""},
		{"response_mode fragment", oidc, func(c *Config) { c.ResponseMode = "fragment" }, "use query or form_post"},
		{"response_mode form_post.jwt", oidc, func(c *Config) { c.ResponseMode = "form_post.jwt" }, "use query or form_post"},
		{"authorize_param invalid max_age", oidc, func(c *Config) { c.AuthorizeParams = []Param{{"max_age", "-1"}} }, "authorize_param max_age"},
		{"token_param code", oidc, func(c *Config) { c.TokenParams = []Param{{"code", canary}} }, "token_param code"},
		{"refresh_param client_secret", oidc, func(c *Config) { c.RefreshParams = []Param{{"client_secret", canary}} }, "refresh_param client_secret"},
		{"refresh_param scope", oidc, func(c *Config) { c.RefreshParams = []Param{{"scope", "FullAccess"}} }, ""},
		{"empty name", oidc, func(c *Config) { c.RefreshParams = []Param{{"", "x"}} }, "refresh_param"},
		{"algorithm", oidc, func(c *Config) { c.IDTokenAlgorithm = "EdDSA" }, ""},
		{"algorithm none", oidc, func(c *Config) { c.IDTokenAlgorithm = "none" }, `id_token_signed_response_alg "none": anyone`},
		{"algorithm HS256", oidc, func(c *Config) { c.IDTokenAlgorithm = "HS256" }, "register the client for RS256"},
		{"algorithm in lower case", oidc, func(c *Config) { c.IDTokenAlgorithm = "es256" }, "id_token_signed_response_alg \"es256\" is unknown: use one of RS256"},
		{"userinfo post", oidc, func(c *Config) { c.UserInfoMethod = "post" }, ""},
		{"userinfo put", oidc, func(c *Config) { c.UserInfoMethod = "put" }, `userinfo "put" is unknown: use get or post`},
		{"negative timeout", oidc, func(c *Config) { c.Timeout = -time.Second }, "timeout"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			cfg := tc.base
			tc.change(&cfg)
			_, err := New(cfg)
			if tc.want == "" {
				if err != nil {
					t.Fatalf("got error %v, want none", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got error %v, want one with %q", err, tc.want)
			}
			checkNoSecret(t, err)
		})
	}
}

func TestOpenIDNeedsTheScope(t *testing.T) {
	s := newServer(t, "https://idp.test")
	for _, tc := range []struct {
		scopes []string
		want   bool
	}{{nil, true}, {[]string{}, false}, {[]string{"api"}, false}, {[]string{"api", "openid"}, true}} {
		if got := s.client(func(c *Config) { c.Scopes = tc.scopes }).OpenID(); got != tc.want {
			t.Errorf("scopes %q: got OpenID %v, want %v", tc.scopes, got, tc.want)
		}
	}
}

func TestAuthorizationURL(t *testing.T) {
	s := startServer(t)
	age := 60
	full := AuthorizationRequest{
		RedirectURI: testRedirect, State: testStateValue, Nonce: testNonce,
		// The pair of RFC 7636 appendix B.
		Verifier: "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
		Prompt:   "login", LoginHint: "a@b", ACRValues: "x y", UILocales: "sv", MaxAge: &age,
	}
	c := s.client(func(c *Config) {
		c.Scopes = []string{"openid", "offline_access"}
		c.Audience = "https://api.test"
		c.Resources = []string{"https://a.test", "https://b.test"}
		c.AuthorizeParams = []Param{{"prompt", "consent"}, {"access_type", "offline"}}
	})
	got, err := c.AuthorizationURL(testContext(t), full)
	if err != nil {
		t.Fatal(err)
	}
	want := s.issuer + "/authorize?tenant=a%20b&" + url.Values{
		"response_type": {"code"}, "client_id": {testClient}, "redirect_uri": {testRedirect},
		"scope": {"openid offline_access"}, "state": {testStateValue}, "nonce": {testNonce},
		"code_challenge": {"E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"}, "code_challenge_method": {"S256"},
		"audience": {"https://api.test"}, "resource": {"https://a.test", "https://b.test"},
		"prompt": {"login"}, "login_hint": {"a@b"}, "acr_values": {"x y"}, "ui_locales": {"sv"}, "max_age": {"60"},
		"access_type": {"offline"},
	}.Encode()
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}

	for name, change := range map[string]func(*AuthorizationRequest){
		"no state":       func(r *AuthorizationRequest) { r.State = "" },
		"no nonce":       func(r *AuthorizationRequest) { r.Nonce = "" },
		"short verifier": func(r *AuthorizationRequest) { r.Verifier = "short" },
		"no redirect":    func(r *AuthorizationRequest) { r.RedirectURI = "" },
	} {
		r := full
		change(&r)
		if u, err := c.AuthorizationURL(testContext(t), r); err == nil {
			t.Errorf("%s: got %s, want an error", name, u)
		}
	}
}

// TestRequestParametersReplaceTheConfiguredOnes, except that the smaller max_age counts.
func TestRequestParametersReplaceTheConfiguredOnes(t *testing.T) {
	s := startServer(t)
	c := s.client(func(c *Config) {
		c.ResponseMode = ResponseModeFormPost
		c.AuthorizeParams = []Param{{"kc_idp_hint", "a"}, {"domain_hint", "b"}, {"max_age", "60"}}
	})
	request := AuthorizationRequest{RedirectURI: testRedirect, State: testStateValue, Nonce: testNonce, Verifier: testVerifier}
	for _, tc := range []struct {
		name   string
		maxAge *int
		want   string
	}{{"no max_age", nil, "60"}, {"larger", new(3600), "60"}, {"smaller", new(5), "5"}, {"zero", new(0), "0"}} {
		r := request
		r.MaxAge, r.Params = tc.maxAge, []Param{{"kc_idp_hint", "google&x=y"}, {"organization", "o"}, {"empty", ""}}
		got, err := c.AuthorizationURL(testContext(t), r)
		if err != nil {
			t.Fatal(err)
		}
		u, err := url.Parse(got)
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string][]string{
			"kc_idp_hint": {"google&x=y"}, "domain_hint": {"b"}, "organization": {"o"}, "empty": nil, "max_age": {tc.want}, "response_mode": {"form_post"},
		} {
			if !slices.Equal(u.Query()[name], want) {
				t.Errorf("%s: %s is %q, want %q", tc.name, name, u.Query()[name], want)
			}
		}
	}
	for _, name := range []string{"state", "redirect_uri", "scope", "response_mode", "claims", "", "a b"} {
		r := request
		r.Params = []Param{{name, "x"}}
		if u, err := c.AuthorizationURL(testContext(t), r); err == nil {
			t.Errorf("parameter %q: got %s, want an error", name, u)
		}
	}
}

func TestPlainOAuthSendsNoOpenIDParameters(t *testing.T) {
	c, err := New(Config{ClientID: "app", Endpoints: Endpoints{Authorization: "https://idp.test/a", Token: "https://idp.test/t"}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.AuthorizationURL(testContext(t), AuthorizationRequest{
		RedirectURI: testRedirect, State: testStateValue, Nonce: testNonce, Verifier: testVerifier,
	})
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(got)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"nonce", "scope", "audience", "prompt", "max_age", "resource"} {
		if u.Query().Has(name) {
			t.Errorf("got %s, want no parameter %s", got, name)
		}
	}
}

func TestPushedAuthorizationRequest(t *testing.T) {
	request := AuthorizationRequest{RedirectURI: testRedirect, State: testStateValue, Nonce: testNonce, Verifier: testVerifier}

	t.Run("required by the server", func(t *testing.T) {
		s := startServer(t)
		s.metadata["pushed_authorization_request_endpoint"] = s.issuer + "/par"
		s.metadata["require_pushed_authorization_requests"] = true
		s.respond("/par", 201, `{"request_uri":"urn:x:1","expires_in":60}`)
		got, err := s.client().AuthorizationURL(testContext(t), request)
		if err != nil {
			t.Fatal(err)
		}
		if want := s.issuer + "/authorize?tenant=a%20b&client_id=client%3Aid%2B1&request_uri=urn%3Ax%3A1"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		form, header := s.lastPost()
		if form.Get("state") != testStateValue || form.Get("code_challenge") == "" || header.Get("Authorization") == "" {
			t.Errorf("got form %v with header %v, want state, code_challenge and Authorization", form, header)
		}
	})
	t.Run("failure never falls back", func(t *testing.T) {
		s := startServer(t)
		s.respond("/par", 503, "", "Retry-After", "7")
		c := s.client(func(c *Config) { c.Endpoints.PushedAuthorizationRequest = s.issuer + "/par" })
		u, err := c.AuthorizationURL(testContext(t), request)
		if e, ok := errors.AsType[*TokenError](err); !ok || e.Kind != Unavailable || e.RetryAfter != 7*time.Second {
			t.Errorf("got %q, %v; want Unavailable with RetryAfter 7s", u, err)
		}
	})
	t.Run("required without an endpoint", func(t *testing.T) {
		s := startServer(t)
		s.metadata["require_pushed_authorization_requests"] = true
		if u, err := s.client().AuthorizationURL(testContext(t), request); !errors.Is(err, ErrNoEndpoint) {
			t.Errorf("got %q, %v; want %v", u, err, ErrNoEndpoint)
		}
	})
	t.Run("offered, and the request is long", func(t *testing.T) {
		for name, tc := range map[string]struct {
			length, status int
			pushed         bool
			url            string // its end
		}{
			"short":           {100, 201, false, "&state="},
			"long":            {2000, 201, true, "client_id=client%3Aid%2B1&request_uri=urn%3Ax%3A1"},
			"long, refused":   {2000, 401, true, "&state="},
			"long, no answer": {2000, 503, true, "&state="},
		} {
			s := startServer(t)
			s.metadata["pushed_authorization_request_endpoint"] = s.issuer + "/par"
			s.respond("/par", tc.status, `{"request_uri":"urn:x:1","expires_in":60}`)
			c := s.client(func(c *Config) {
				c.AuthorizeParams = []Param{{"authorization_details", strings.Repeat("x", tc.length)}}
			})
			got, err := c.AuthorizationURL(testContext(t), request)
			if err != nil || !strings.Contains(got, tc.url) || s.count("/par") != 0 != tc.pushed {
				t.Errorf("%s: got %.200s, error %v and %d pushed requests; want %s", name, got, err, s.count("/par"), tc.url)
			}
		}
	})
	t.Run("only offered", func(t *testing.T) {
		s := startServer(t)
		s.metadata["pushed_authorization_request_endpoint"] = s.issuer + "/par"
		if _, err := s.client().AuthorizationURL(testContext(t), request); err != nil || s.count("/par") != 0 {
			t.Errorf("got error %v, %d pushed requests; want none", err, s.count("/par"))
		}
	})
}

func TestCheckIssuer(t *testing.T) {
	s := startServer(t)
	announcing := startServer(t)
	announcing.metadata["authorization_response_iss_parameter_supported"] = true
	tests := []struct {
		name   string
		server *server
		iss    func(issuer string) []string
		ok     bool
	}{
		{"same", announcing, func(i string) []string { return []string{i} }, true},
		{"missing though announced", announcing, func(string) []string { return nil }, false},
		{"missing", s, func(string) []string { return nil }, true},
		{"other", s, func(string) []string { return []string{"https://evil.test"} }, false},
		{"trailing slash", s, func(i string) []string { return []string{i + "/"} }, false},
		{"empty", s, func(string) []string { return []string{""} }, false},
		{"twice", s, func(i string) []string { return []string{i, i} }, false},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			if err := tc.server.client().CheckIssuer(testContext(t), tc.iss(tc.server.issuer)); (err == nil) != tc.ok {
				t.Errorf("got error %v, want accepted: %v", err, tc.ok)
			}
		})
	}
	t.Run("metadata not available", func(t *testing.T) {
		down := startServer(t)
		down.respond("/.well-known/openid-configuration", 503, "")
		if err := down.client().CheckIssuer(testContext(t), nil); !errors.Is(err, ErrMetadataUnavailable) {
			t.Errorf("got error %v, want %v", err, ErrMetadataUnavailable)
		}
	})
}

// TestConfigPrintsItsContent: package caddymodule compares configurations by their
// %#v without ClientSecret, RootCAs and Trace. Pointers and functions print as an address.
func TestConfigPrintsItsContent(t *testing.T) {
	var check func(path string, typ reflect.Type)
	check = func(path string, typ reflect.Type) {
		switch typ.Kind() {
		case reflect.Bool, reflect.String, reflect.Int, reflect.Int64:
		case reflect.Slice:
			check(path+"[]", typ.Elem())
		case reflect.Struct:
			for field := range typ.Fields() {
				if name := path + "." + field.Name; name != "Config.ClientSecret" && name != "Config.RootCAs" && name != "Config.Trace" {
					check(name, field.Type)
				}
			}
		default:
			t.Errorf("%s: got kind %v, want a value that prints its content", path, typ.Kind())
		}
	}
	check("Config", reflect.TypeFor[Config]())
}
