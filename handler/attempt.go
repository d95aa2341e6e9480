package handler

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"time"
)

const (
	loginCookiePrefix = hostPrefix + "oauth_login_"
	// attemptLifetime is how long somebody may take to sign in.
	loginAttemptLifetime = 10 * time.Minute
	// maxAttempts is how many logins one browser can have open at a time. The
	// oldest gives way: its tab still finds its way by the state parameter.
	maxLoginAttempts = 5
	// maxAttemptsSize is what the cookies beside a new one may take in all, so
	// that the whole Cookie header stays below what servers accept.
	maxLoginCookiesSize = 4 << 10
	// stateNameLength is how much of the state names the cookie of its attempt.
	stateNameLength = 12
	// maxStateReturnPath keeps the state parameter short enough for every
	// server.
	maxStateReturnPath = 512
	// maxStateSize bounds what is opened at all.
	maxStateSize = 4096
)

// attempt is one login under way. It lives in a sealed cookie of its own, so
// that several tabs do not disturb each other, and nothing is stored for
// somebody who has not logged in.
type loginAttempt struct {
	// State is the hash of the state parameter this attempt was begun with.
	State    []byte `json:"s"`
	Nonce    string `json:"n,omitempty"`
	Verifier string `json:"v,omitempty"`
	// Asked: it was begun at the login endpoint, and is not content with a
	// session that is there by now.
	Explicit bool      `json:"a,omitempty"`
	ReturnTo string    `json:"r"`
	Begun    time.Time `json:"b"`
	// Completed counts the logins that were completed one after the other
	// without the session's cookie coming back, from LoopSince on.
	Completed int       `json:"c,omitempty"`
	LoopSince time.Time `json:"l,omitzero"`
}

// loginState is sealed into the state parameter. Whatever has become of the
// attempt's cookie, it leads a tab to the page that was wanted; it is never
// enough to redeem a code.
type loginState struct {
	ReturnTo string `json:"r,omitempty"` // if it is short enough
	Restarts int    `json:"n,omitempty"` // automatic ones before this attempt
	Random   string `json:"x"`
}

// stateCookieName separates the sealed state from the sealed cookies.
const stateCookieName = "state"

// sealState makes a state parameter. It is unguessable: it is sealed under a
// random salt and nonce, and holds 128 random bits besides.
func (h *Handler) sealState(s loginState) (string, error) {
	s.Random = randomText(16)
	if len(s.ReturnTo) > maxStateReturnPath {
		s.ReturnTo = ""
	}
	plain, err := marshal(s)
	if err != nil {
		return "", err
	}
	return h.Keeper.Site.SealForBrowser(stateCookieName, plain)
}

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

// attemptCookieName belongs to a state that openState has opened.
func loginCookieName(state string) string {
	return loginCookiePrefix + state[max(0, len(state)-stateNameLength):]
}

func hashState(state string) []byte {
	sum := sha256.Sum256([]byte(state))
	return sum[:]
}

// setAttempt keeps an attempt in the browser, and lets the oldest ones go if
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

// evictAttempts makes room for one more. Cookies that do not open go first, then
// the oldest.
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

// openAttempt opens a login cookie that is young enough.
func (h *Handler) openLoginAttempt(c *http.Cookie) (a loginAttempt, ok bool) {
	plain, ok := h.Keeper.Site.OpenFromBrowser(c.Name, c.Value)
	if !ok || json.Unmarshal(plain, &a) != nil || time.Since(a.Begun) > loginAttemptLifetime {
		return loginAttempt{}, false
	}
	return a, true
}

// findAttempt returns the attempt that was begun with a state, and its cookie. A
// name that occurs twice is no answer.
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

// clearAttempts forgets all logins of a browser.
func (h *Handler) clearLoginCookies(w http.ResponseWriter, c *cookies) {
	for _, login := range c.logins {
		h.clearLoginCookie(w, login.Name)
	}
}

// loginCookie must come along when the authorization server sends the browser
// back: Lax does that for navigations. A site that is embedded in others needs
// None, as for its session.
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

// marshal is json.Marshal, which however writes & as six bytes.
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
	_, _ = rand.Read(b) // never fails: crypto/rand.Read ends the program instead
	return base64.RawURLEncoding.EncodeToString(b)
}
