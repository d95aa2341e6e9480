package dialect

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// authentication lists the ways in which a client may send its credentials:
// client_secret_basic and client_secret_post.
type authentication struct{ basic, body bool }

// refreshToken is an issued refresh token.
type refreshToken struct {
	login   *login
	expires time.Time // zero: never
	spent   bool
	sent    int // requests with this token
}

// tokens are the contents of a successful token answer.
type tokens struct {
	login           *login
	access, refresh string // refresh is "" if there is none
	accessExpires   time.Time
	lifetime        time.Duration
	afterRefresh    bool
}

// token serves the token endpoint.
func (s *Server) token(w http.ResponseWriter, r *http.Request) {
	form, wrong := s.readForm(r)
	if len(wrong) > 0 {
		s.refuse(w, wrong, problem{http.StatusBadRequest, "invalid_request", "not a token request"})
		return
	}
	credentials, wrong := s.authenticate(r, form)
	if len(wrong) > 0 {
		s.refuse(w, wrong, s.rules.badClient)
		return
	}
	var p parameters
	switch grant := form.Get("grant_type"); grant {
	case "authorization_code":
		p = s.rules.code.with(map[string]string{"code": "", "redirect_uri": s.rules.redirectURI})
		p.optional = append([]string{"code_verifier"}, p.optional...)
	case "refresh_token":
		p = s.rules.refresh.with(map[string]string{"refresh_token": ""})
		s.countSent(form.Get("refresh_token"))
	default:
		s.refuse(w, []string{fmt.Sprintf("grant_type %q", grant)}, problem{http.StatusBadRequest, "unsupported_grant_type", "unknown grant_type"})
		return
	}
	p = p.with(map[string]string{"grant_type": ""}).with(credentials)
	if wrong := p.check(form); len(wrong) > 0 {
		s.refuse(w, wrong, problem{http.StatusBadRequest, "invalid_request", wrong[0]})
		return
	}
	answer, ok, err := s.redeem(form)
	switch {
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	case !ok:
		s.refuse(w, nil, s.rules.badGrant)
	default:
		writeJSON(w, http.StatusOK, answer)
	}
}

// refuse sends an error answer and records the client's violations.
func (s *Server) refuse(w http.ResponseWriter, violations []string, p problem) {
	for _, violation := range violations {
		s.recordViolation("token: " + violation)
	}
	writeJSON(w, p.status, map[string]string{"error": p.code, "error_description": p.description})
}

// readForm parses the body itself, since net/http parses only bodies with the
// content type of a form.
func (s *Server) readForm(r *http.Request) (form url.Values, wrong []string) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, []string{"unreadable body"}
	}
	if form, err = url.ParseQuery(string(body)); err != nil {
		wrong = append(wrong, "unreadable form")
	}
	if r.Method != http.MethodPost {
		wrong = append(wrong, "method "+r.Method)
	}
	if r.URL.RawQuery != "" {
		wrong = append(wrong, "parameters in the URL")
	}
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); !s.rules.anyContentType && (err != nil || media != "application/x-www-form-urlencoded") {
		wrong = append(wrong, fmt.Sprintf("content type %q", media))
	}
	return form, wrong
}

// authenticate checks the client's credentials and returns the form parameters
// that carried them.
func (s *Server) authenticate(r *http.Request, form url.Values) (used map[string]string, wrong []string) {
	rules := s.rules
	id, secret, basic := r.BasicAuth()
	switch {
	case basic && !rules.auth.basic:
		return nil, []string{"Basic authentication"}
	case basic && (form.Has("client_id") || form.Has("client_secret")):
		return nil, []string{"credentials in header and body"}
	case basic:
		var err1, err2 error
		id, err1 = url.QueryUnescape(id) // RFC 6749, section 2.3.1
		secret, err2 = url.QueryUnescape(secret)
		if err1 != nil || err2 != nil {
			return nil, []string{"Basic credentials are not form-encoded"}
		}
	case r.Header.Get("Authorization") != "":
		return nil, []string{"unknown Authorization scheme"}
	default:
		id, secret = form.Get("client_id"), form.Get("client_secret")
		used = map[string]string{"client_id": ""}
		if rules.clientSecret != "" {
			used["client_secret"] = ""
		}
		if rules.clientSecret != "" && !rules.auth.body {
			return nil, []string{"credentials in the body"}
		}
	}
	if id != rules.clientID || secret != rules.clientSecret {
		return nil, []string{"wrong client credentials"}
	}
	return used, nil
}

func (s *Server) countSent(value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.refreshes[value]; t != nil {
		t.sent++
	}
}

// redeem exchanges the code or refresh token in a well-formed request. ok is
// false if the grant is unknown, expired or spent.
func (s *Server) redeem(form url.Values) (answer map[string]any, ok bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := tokens{lifetime: s.accessLife, accessExpires: time.Now().Add(s.accessLife)}
	if code := form.Get("code"); code != "" {
		t.login = s.codes[code]
		if t.login == nil || !t.login.redeemable(form.Get("code_verifier")) {
			return nil, false, nil
		}
		t.login.spent = true
		if s.rules.refreshable(t.login, s.refreshLife) {
			t.refresh = s.issueRefreshToken(t.login, s.refreshExpiry())
		}
	} else {
		value := form.Get("refresh_token")
		old := s.refreshes[value]
		if old == nil || old.spent || !old.expires.IsZero() && !time.Now().Before(old.expires) {
			return nil, false, nil
		}
		t.login, t.afterRefresh, t.refresh = old.login, true, value
		if s.rules.rotates {
			old.spent = true
			expires := old.expires
			if s.rules.rolling {
				expires = s.refreshExpiry()
			}
			t.refresh = s.issueRefreshToken(old.login, expires)
		}
		s.refreshed++
	}
	if t.access, err = s.sign(map[string]any{
		"sub": user, "jti": canary("AT_"), "exp": t.accessExpires.Unix(), "iat": time.Now().Unix(),
	}); err != nil {
		return nil, false, err
	}
	s.accesses[t.access] = t.accessExpires
	answer, err = s.rules.answer(s, t)
	return answer, true, err
}

// redeemable reports whether the login's code is unspent, unexpired and fits
// the PKCE verifier. A login without a challenge takes no verifier.
func (l *login) redeemable(verifier string) bool {
	if l.spent || !time.Now().Before(l.expires) {
		return false
	}
	challenge := l.query.Get("code_challenge")
	sum := sha256.Sum256([]byte(verifier))
	return challenge == "" && verifier == "" || challenge == base64.RawURLEncoding.EncodeToString(sum[:])
}

// refreshExpiry returns the expiry of a refresh token issued now. It needs s.mu.
func (s *Server) refreshExpiry() time.Time {
	if s.refreshLife == 0 {
		return time.Time{}
	}
	return time.Now().Add(s.refreshLife)
}

// issueRefreshToken needs s.mu.
func (s *Server) issueRefreshToken(l *login, expires time.Time) string {
	value := s.rules.newRefreshToken()
	s.refreshes[value] = &refreshToken{login: l, expires: expires}
	return value
}

// keyID is the kid of the example in Pagero's documentation.
const keyID = "1553782041"

// signingKey is one RSA key for all servers of the process: generating a key
// is slow, and no test depends on servers having different ones.
var signingKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

// sign returns a signed JWT with the claims and iss.
func (s *Server) sign(claims map[string]any) (string, error) {
	key, err := signingKey()
	if err != nil {
		return "", fmt.Errorf("making the signing key: %w", err)
	}
	all := jwt.MapClaims{"iss": s.URL + "/"}
	maps.Copy(all, claims)
	t := jwt.NewWithClaims(jwt.SigningMethodRS256, all)
	t.Header["kid"] = keyID
	return t.SignedString(key)
}

// canary returns a random value with a prefix to search for.
func canary(prefix string) string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand.Read ends the program instead
	return prefix + hex.EncodeToString(b[:])
}

// uuid returns a random UUID (version 4).
func uuid() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}
