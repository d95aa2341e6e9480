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

// authentication says how a client may present its credentials.
type authentication struct{ basic, body bool }

// refreshToken is an issued refresh token.
type refreshToken struct {
	login *login
	ends  time.Time // zero: never
	spent bool
	sent  int
}

// tokens is what an answer is made of.
type tokens struct {
	login           *login
	access, refresh string
	accessEnds      time.Time
	lifetime        time.Duration
	afterRefresh    bool
}

// token is the token endpoint.
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
	answer, bad, err := s.redeem(form)
	switch {
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	case bad:
		s.refuse(w, nil, s.rules.badGrant)
	default:
		writeJSON(w, http.StatusOK, answer)
	}
}

// refuse answers an error and records why it was the client's.
func (s *Server) refuse(w http.ResponseWriter, wrong []string, p problem) {
	for _, what := range wrong {
		s.violate("token: " + what)
	}
	writeJSON(w, p.status, map[string]string{"error": p.code, "error_description": p.description})
}

// readForm reads the body itself, since net/http looks only into forms that
// are declared as such.
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

// authenticate checks the client and returns the parameters it did that with.
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

// redeem exchanges the grant in a well-formed request. bad means that the
// grant is not worth anything.
func (s *Server) redeem(form url.Values) (answer map[string]any, bad bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := tokens{lifetime: s.accessLife, accessEnds: time.Now().Add(s.accessLife)}
	if code := form.Get("code"); code != "" {
		t.login = s.codes[code]
		if t.login == nil || !t.login.redeemable(form.Get("code_verifier")) {
			return nil, true, nil
		}
		t.login.spent = true
		if s.rules.refreshable(t.login, s.refreshLife) {
			t.refresh = s.newRefresh(t.login, s.refreshEnd())
		}
	} else {
		value := form.Get("refresh_token")
		old := s.refreshes[value]
		if old == nil || old.spent || !old.ends.IsZero() && !time.Now().Before(old.ends) {
			return nil, true, nil
		}
		t.login, t.afterRefresh, t.refresh = old.login, true, value
		if s.rules.rotates {
			old.spent = true
			ends := old.ends
			if s.rules.rolling {
				ends = s.refreshEnd()
			}
			t.refresh = s.newRefresh(old.login, ends)
		}
		s.redeemed++
	}
	if t.access, err = s.sign(map[string]any{
		"sub": user, "jti": canary("AT_"), "exp": t.accessEnds.Unix(), "iat": time.Now().Unix(),
	}); err != nil {
		return nil, false, err
	}
	s.accesses[t.access] = t.accessEnds
	answer, err = s.rules.answer(s, t)
	return answer, false, err
}

func (l *login) redeemable(verifier string) bool {
	if l.spent || !time.Now().Before(l.expires) {
		return false
	}
	challenge := l.query.Get("code_challenge")
	sum := sha256.Sum256([]byte(verifier))
	return challenge == "" && verifier == "" || challenge == base64.RawURLEncoding.EncodeToString(sum[:])
}

// refreshEnd is when a refresh token of now ends. It needs s.mu.
func (s *Server) refreshEnd() time.Time {
	if s.refreshLife == 0 {
		return time.Time{}
	}
	return time.Now().Add(s.refreshLife)
}

// newRefresh needs s.mu.
func (s *Server) newRefresh(l *login, ends time.Time) string {
	value := s.rules.newRefreshToken()
	s.refreshes[value] = &refreshToken{login: l, ends: ends}
	return value
}

// keyID is the kid of the example in Pagero's documentation.
const keyID = "1553782041"

// signingKey is shared by all servers of a process, since making one is slow
// and nothing here depends on whose it is.
var signingKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

// sign makes a JWT, the form of all tokens that the documentations call one.
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

// canary is a random value that is easy to grep for.
func canary(prefix string) string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand.Read ends the program instead
	return prefix + hex.EncodeToString(b[:])
}

// uuid is a random UUID (version 4).
func uuid() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}
