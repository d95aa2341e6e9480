package oauth

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// testAssertion returns an assertion of another program that expires after d. Its
// content is a secret.
func testAssertion(d time.Duration, change ...any) string {
	claims := edit(map[string]any{
		"iss": "https://cluster.test", "sub": "system:serviceaccount:web:caddy", "aud": []string{"https://idp.test"},
		"exp": time.Now().Add(d).Unix(), "secret": canary,
	}, change...)
	return sign(jwt.SigningMethodES256, keyB(), claims, "kid", canary)
}

// withAssertion configures client_assertion.
func withAssertion(file, kind string) func(*Config) {
	return func(c *Config) { c.ClientSecret, c.ClientAssertion = nil, ClientAssertion{File: file, Type: kind} }
}

// TestAssertionOfAFileIsSent: every call sends the content of the file, trimmed, with
// the type and the client_id.
func TestAssertionOfAFileIsSent(t *testing.T) {
	const spiffe = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"
	for kind, want := range map[string]string{
		"": jwtBearer, jwtBearer: jwtBearer, "jwt-bearer": jwtBearer, "jwt-spiffe": spiffe, spiffe: spiffe, "urn:example:own": "urn:example:own",
	} {
		t.Run("type "+kind, func(t *testing.T) {
			s := startServer(t)
			serveAllCalls(s)
			assertion := testAssertion(time.Hour)
			c := s.client(withAssertion(keyFileOf(t, "\n"+assertion+"\r\n"), kind), func(c *Config) {
				c.Endpoints.PushedAuthorizationRequest = s.issuer + "/par"
			})
			for name, call := range assertionCalls(t, c) {
				if err := call(); err != nil {
					t.Fatalf("%s: got error %v", name, err)
				}
				form, header := s.lastPost()
				if form.Get("client_assertion") != assertion || form.Get("client_assertion_type") != want || form.Get("client_id") != testClient {
					t.Errorf("%s: got form %v, want the assertion of the file, %s and the client_id", name, form, want)
				}
				if form.Has("client_secret") || header.Get("Authorization") != "" {
					t.Errorf("%s: got a secret, want none", name)
				}
			}
		})
	}
}

// TestRenewedAssertionIsSentAtOnce: the file is looked at for each request.
func TestRenewedAssertionIsSentAtOnce(t *testing.T) {
	s := startServer(t)
	serveAllCalls(s)
	path := keyFileOf(t, testAssertion(time.Hour))
	c := s.client(withAssertion(path, ""))
	for i := range 3 {
		want := testAssertion(time.Hour, "jti", i)
		replaceFile(t, path, want)
		if _, err := c.Refresh(testContext(t), testRefresh, nil); err != nil {
			t.Fatal(err)
		}
		if form, _ := s.lastPost(); form.Get("client_assertion") != want {
			t.Errorf("renewal %d: got another assertion than that of the file", i)
		}
	}
}

// TestUnusableAssertionFileIsRefusedAtStart: the error names the option, the file and the
// cause, and contains nothing of the content.
func TestUnusableAssertionFileIsRefusedAtStart(t *testing.T) {
	good := testAssertion(time.Hour)
	parts := strings.Split(good, ".")
	dir := t.TempDir()
	for name, tc := range map[string]struct{ content, want string }{
		"empty":             {"  \n", "is empty"},
		"no JWT":            {canary, "holds no signed JWT"},
		"unsigned":          {parts[0] + "." + parts[1] + ".", "holds no signed JWT"},
		"half a JWT":        {parts[0] + "." + parts[1][:20], "holds no signed JWT"},
		"encrypted":         {good + ".a.b", "holds no signed JWT"},
		"not base64url":     {parts[0] + ".!" + canary + "." + parts[2], "a part is not base64url"},
		"two lines":         {parts[0] + "." + parts[1] + "\n." + parts[2], "a part is not base64url"},
		"payload of a text": {parts[0] + "." + parts[0][:6] + "." + parts[2], "payload is not JSON"},
		"large":             {strings.Repeat("x", maxAssertionFile+1), "larger than 16384 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			wantAssertionError(t, keyFileOf(t, tc.content), tc.want)
		})
	}
	t.Run("missing", func(t *testing.T) { wantAssertionError(t, filepath.Join(dir, "none"), "no such file") })
	t.Run("directory", func(t *testing.T) { wantAssertionError(t, dir, "not a regular file") })
}

func wantAssertionError(t *testing.T, path, want string) {
	t.Helper()
	_, err := New(Config{Issuer: "https://idp.test", ClientID: "app", ClientAssertion: ClientAssertion{File: path}})
	if err == nil || !strings.Contains(err.Error(), "client_assertion "+path+": ") || !strings.Contains(err.Error(), want) {
		t.Fatalf("got error %v, want one with client_assertion, the file and %q", err, want)
	}
	checkNoSecret(t, err)
}

// TestExpiredAssertionIsNotSent: a refused request may use up a code. A start does not
// fail, because the file may be renewed at any time.
func TestExpiredAssertionIsNotSent(t *testing.T) {
	s := startServer(t)
	serveAllCalls(s)
	path := keyFileOf(t, testAssertion(-2*time.Minute))
	c := s.client(withAssertion(path, ""))
	for name, call := range assertionCalls(t, c) {
		if name == "push" {
			continue // not configured
		}
		err := call()
		if kindOf(err) != Misconfigured || !errors.Is(err, ErrAssertionExpired) || !strings.Contains(err.Error(), "client_assertion "+path) {
			t.Errorf("%s: got error %v, want %v with the option and the file", name, err, ErrAssertionExpired)
		}
		checkNoSecret(t, err)
	}
	if err := c.CheckCredentials(); !errors.Is(err, ErrAssertionExpired) {
		t.Errorf("got %v, want %v", err, ErrAssertionExpired)
	}
	if n := s.count("/token") + s.count("/revoke"); n != 0 {
		t.Errorf("got %d requests, want none", n)
	}
	// The clock of this host may be half a minute ahead of the server's.
	replaceFile(t, path, testAssertion(-30*time.Second))
	if _, err := c.Refresh(testContext(t), testRefresh, nil); err != nil {
		t.Errorf("just expired: got error %v, want none", err)
	}
	replaceFile(t, path, testAssertion(time.Hour))
	if _, err := c.Refresh(testContext(t), testRefresh, nil); err != nil || c.CheckCredentials() != nil {
		t.Errorf("renewed: got errors %v, %v; want none", err, c.CheckCredentials())
	}
}

// TestFormerAssertionCoversAGapOfItsFile: the former assertion is sent while it is valid
// and the file is missing or damaged. CheckCredentials reports the file.
func TestFormerAssertionCoversAGapOfItsFile(t *testing.T) {
	for name, tc := range map[string]struct {
		former string
		ok     bool
	}{
		"valid":          {testAssertion(time.Hour), true},
		"expired":        {testAssertion(-time.Second), false},
		"without expiry": {testAssertion(0, "exp", nil), false},
	} {
		t.Run(name, func(t *testing.T) {
			s := startServer(t)
			serveAllCalls(s)
			path := keyFileOf(t, tc.former)
			c := s.client(withAssertion(path, ""))
			for _, gap := range []func(){
				func() { replaceFile(t, path, canary+"-half") },
				func() { replaceFile(t, path, "") },
				func() { _ = os.Remove(path) },
			} {
				gap()
				_, err := c.Refresh(testContext(t), testRefresh, nil)
				if (err == nil) != tc.ok || err != nil && !strings.Contains(err.Error(), "client_assertion "+path) {
					t.Errorf("got error %v, want success %v or the option and the file", err, tc.ok)
				}
				if err := c.CheckCredentials(); err == nil || !strings.Contains(err.Error(), "client_assertion "+path) {
					t.Errorf("got %v, want the option and the file", err)
				}
				checkNoSecret(t, c.CheckCredentials())
			}
		})
	}
}
