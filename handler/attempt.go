package handler

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"time"
)

const (
	loginCookiePrefix = hostPrefix + "oauth_login_"
	// loginAttemptLifetime is how long a user may take to sign in.
	loginAttemptLifetime = 10 * time.Minute
	// maxLoginAttempts is how many logins one browser can have in progress. A
	// further login deletes the oldest cookie. The tab of that login is still led
	// to its page by the state parameter.
	maxLoginAttempts = 5
	// maxLoginCookiesSize bounds the login cookies next to a new one, in bytes, so
	// that the whole Cookie header stays below the limit of common servers.
	maxLoginCookiesSize = 4 << 10
	// recentAttempt is the age up to which an attempt is expected to be completed soon.
	recentAttempt = time.Minute
	// stateNameLength is how many characters of the state parameter are part of the
	// name of the attempt's cookie.
	stateNameLength = 12
	// maxStateReturnPath bounds the return path in the state parameter, because
	// some authorization servers limit the length of that parameter.
	maxStateReturnPath = 512
	// maxStateSize bounds the state parameters that are opened.
	maxStateSize = 4096
)

// loginAttempt is one login in progress. It is stored in a sealed cookie of the
// browser. Several tabs can therefore log in at the same time, and a login that is
// never completed costs no memory on the server.
type loginAttempt struct {
	// State is the hash of the state parameter of this attempt.
	State    []byte `json:"s"`
	Nonce    string `json:"n,omitempty"`
	Verifier string `json:"v,omitempty"`
	// Explicit marks a login that began at the login endpoint. It is completed even
	// if the browser has a session in the meantime.
	Explicit bool      `json:"a,omitempty"`
	ReturnTo string    `json:"r"`
	Begun    time.Time `json:"b"`
	// FormPost means that the server was asked to send its response as a form.
	FormPost bool `json:"f,omitempty"`
	// Completed counts the landings before this attempt, of which the first was at
	// LoopSince (see loop.go).
	Completed int       `json:"c,omitempty"`
	LoopSince time.Time `json:"l,omitzero"`
}

// loginState is sealed into the state parameter. Even without the attempt's cookie
// it leads the browser to the wanted page. It is not sufficient to redeem a code.
type loginState struct {
	ReturnTo string `json:"r,omitempty"` // empty if it is too long
	Restarts int    `json:"n,omitempty"` // automatic restarts before this attempt
	Begun    int64  `json:"t,omitempty"` // in Unix microseconds; 0 in a state of an older version
	Random   string `json:"x"`
	// Params are those of the login endpoint that the authorization request had.
	Params loginParams `json:"p,omitempty"`
}

// stateCookieName is the name under which state is sealed. It keeps a sealed state
// from being accepted as a sealed cookie, and the reverse.
const stateCookieName = "state"

// sealState returns a state parameter. It cannot be guessed: it is sealed under a
// random salt and nonce, and contains 128 random bits.
func (h *Handler) sealState(s loginState) (string, error) {
	s.Random, s.Begun = randomText(16), time.Now().UnixMicro()
	if len(s.ReturnTo) > maxStateReturnPath {
		s.ReturnTo = ""
	}
	plain, err := marshal(s)
	if err != nil {
		return "", err
	}
	return h.Keeper.Site.SealForBrowser(stateCookieName, plain)
}

// openState opens a state parameter. It reports false for one that this site has
// not sealed.
func (h *Handler) openState(state string) (s loginState, ok bool) {
	if len(state) > maxStateSize {
		return s, false
	}
	plain, ok := h.Keeper.Site.OpenFromBrowser(stateCookieName, state)
	if !ok || json.Unmarshal(plain, &s) != nil {
		return loginState{}, false
	}
	if s.ReturnTo == "" {
		s.ReturnTo = "/"
	}
	return s, true
}

// loginCookieName returns the name of the cookie that belongs to a state. The state
// must have been opened before, which checks all its characters.
func loginCookieName(state string) string {
	return loginCookiePrefix + state[max(0, len(state)-stateNameLength):]
}

func hashState(state string) []byte {
	sum := sha256.Sum256([]byte(state))
	return sum[:]
}

// setLoginAttempt stores an attempt in the browser, and deletes the oldest ones if
// there are too many.
func (h *Handler) setLoginAttempt(w http.ResponseWriter, c *cookies, name string, a loginAttempt) error {
	plain, err := marshal(a)
	if err != nil {
		return err
	}
	value, err := h.Keeper.Site.SealForBrowser(name, plain)
	if err != nil {
		return err
	}
	h.evictLoginAttempts(w, c, name)
	http.SetCookie(w, h.loginCookie(name, value, int(loginAttemptLifetime/time.Second)))
	return nil
}

// evictLoginAttempts makes room for one more attempt. It deletes cookies that
// cannot be opened first, and then the oldest attempts.
func (h *Handler) evictLoginAttempts(w http.ResponseWriter, c *cookies, but string) {
	type candidate struct {
		name string
		size int
		a    loginAttempt
		ok   bool
	}
	var open []candidate
	size := 0
	for _, login := range c.logins {
		if login.Name == but || login.Name == loopCookieName {
			continue
		}
		a, ok := h.openLoginAttempt(login)
		open = append(open, candidate{login.Name, len(login.Name) + len(login.Value), a, ok})
		size += len(login.Name) + len(login.Value)
	}
	before := func(x, y candidate) bool {
		if x.ok != y.ok {
			return !x.ok
		}
		return x.a.Begun.Before(y.a.Begun)
	}
	for len(open) >= maxLoginAttempts || size > maxLoginCookiesSize {
		oldest := 0
		for i := range open {
			if before(open[i], open[oldest]) {
				oldest = i
			}
		}
		h.clearLoginCookie(w, open[oldest].name)
		size -= open[oldest].size
		open = append(open[:oldest], open[oldest+1:]...)
	}
}

// openLoginAttempt opens a login cookie. It reports false for one that this site
// has not sealed, and for one that is older than loginAttemptLifetime.
func (h *Handler) openLoginAttempt(c *http.Cookie) (a loginAttempt, ok bool) {
	plain, ok := h.Keeper.Site.OpenFromBrowser(c.Name, c.Value)
	if !ok || json.Unmarshal(plain, &a) != nil || time.Since(a.Begun) > loginAttemptLifetime {
		return loginAttempt{}, false
	}
	return a, true
}

// hasRecentAttempt reports whether the browser has begun a login within the last minute
// that is still in progress.
func (h *Handler) hasRecentAttempt(c *cookies) bool {
	return slices.ContainsFunc(c.logins, func(login *http.Cookie) bool {
		a, ok := h.openLoginAttempt(login)
		return ok && a.State != nil && time.Since(a.Begun) < recentAttempt
	})
}

// findLoginAttempt returns the attempt of a state, and its cookie. It reports false
// if two cookies have the name, because one of them may be planted.
func (h *Handler) findLoginAttempt(c *cookies, state string) (a loginAttempt, cookie *http.Cookie, ok bool) {
	name := loginCookieName(state)
	for _, login := range c.logins {
		if login.Name != name {
			continue
		}
		if cookie != nil {
			return loginAttempt{}, nil, false
		}
		if a, ok = h.openLoginAttempt(login); !ok {
			return loginAttempt{}, nil, false
		}
		cookie = login
	}
	if cookie == nil || subtle.ConstantTimeCompare(a.State, hashState(state)) != 1 {
		return loginAttempt{}, nil, false
	}
	return a, cookie, true
}

func (h *Handler) clearLoginCookie(w http.ResponseWriter, name string) {
	http.SetCookie(w, h.loginCookie(name, "", -1))
}

// clearLoginCookies deletes all login cookies of a browser.
func (h *Handler) clearLoginCookies(w http.ResponseWriter, c *cookies) {
	for _, login := range c.logins {
		h.clearLoginCookie(w, login.Name)
	}
}

// loginCookie returns a login cookie. The browser must send it on the redirect from
// the authorization server, which SameSite=Lax does for navigations. A response that
// the server's page posts comes without it, and a page of this site hands the response
// over (servePostedCallback). A site that is embedded in others needs None, like its
// session cookie.
func (h *Handler) loginCookie(name, value string, maxAge int) *http.Cookie {
	sameSite := http.SameSiteLaxMode
	if h.Cookie.sameSite == http.SameSiteNoneMode {
		sameSite = http.SameSiteNoneMode
	}
	return &http.Cookie{
		Name: name, Value: value, MaxAge: maxAge, Path: "/", Secure: true, HttpOnly: true,
		SameSite: sameSite, Partitioned: h.Cookie.Partitioned,
	}
}

// marshal is json.Marshal without escaping of HTML, which would write & as six
// bytes.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return b.Bytes(), err
}

// randomText returns n random bytes in base64url.
func randomText(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // crypto/rand.Read never returns an error: it ends the program instead
	return base64.RawURLEncoding.EncodeToString(b)
}
