package handler

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/oauth-session/caddy-oauth-session/session/keeper"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// Cookie is how the session's cookie is set. Secure and HttpOnly are not
// options.
type Cookie struct {
	// Name begins with "__Host-", so that no other host can set it, or with
	// "__Secure-" if there is a Domain. Default: __Host-oauth_session, or
	// __Secure-oauth_session.
	Name string
	// Domain also sends the cookie to the subdomains of that host. Default: to
	// this host alone.
	Domain string
	// SameSite is "lax" (default), "strict" or "none".
	SameSite string
	// Partitioned keeps a cookie of its own for each site that embeds this one
	// (CHIPS). It needs SameSite "none".
	Partitioned bool

	sameSite http.SameSite
}

const (
	defaultCookieName = "oauth_session"
	hostPrefix        = "__Host-"
	securePrefix      = "__Secure-"
	// These bound how many are looked into: we leave five, and one.
	maxLoginCookies   = 20
	maxSessionCookies = 4
)

// DefaultName returns the name of a session's cookie for which none is given.
func (c *Cookie) DefaultName() string { return c.prefix() + defaultCookieName }

// prefix returns what the name has to begin with.
func (c *Cookie) prefix() string {
	if c.Domain != "" {
		return securePrefix
	}
	return hostPrefix
}

// complete fills in the defaults and refuses what browsers would not keep.
func (c *Cookie) validate() error {
	prefix := c.prefix()
	if c.Name == "" {
		c.Name = c.DefaultName()
	}
	if !strings.HasPrefix(c.Name, prefix) || !isToken(c.Name) {
		return fmt.Errorf("cookie name %q: it must begin with %s and be made of letters, digits, - and _", c.Name, prefix)
	}
	if strings.HasPrefix(c.Name, loginCookiePrefix) {
		return fmt.Errorf("cookie name %q: names that begin with %s are those of the login cookies", c.Name, loginCookiePrefix)
	}
	if strings.Trim(c.Domain, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-.") != "" {
		return fmt.Errorf("cookie domain %q: give a host name such as example.com", c.Domain)
	}
	switch c.SameSite {
	case "", "lax":
		c.sameSite = http.SameSiteLaxMode
	case "strict":
		c.sameSite = http.SameSiteStrictMode
	case "none":
		c.sameSite = http.SameSiteNoneMode
	default:
		return fmt.Errorf("cookie same_site %q: give lax, strict or none", c.SameSite)
	}
	if c.Partitioned && c.sameSite != http.SameSiteNoneMode {
		return errors.New("cookie partitioned needs same_site none")
	}
	return nil
}

// isToken is narrower than RFC 9110: it has to survive every server behind us.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return s != ""
}

// setSession gives the browser a session. The cookie has no Max-Age: it ends
// with the browser, and its lifetime is the server's to keep.
func (h *Handler) setSession(w http.ResponseWriter, secret seal.Secret) {
	http.SetCookie(w, h.sessionCookie(secret.Cookie(), 0))
}

// clearSession uses the attributes the cookie was set with: without them a
// browser ignores the deletion.
func (h *Handler) clearSession(w http.ResponseWriter) {
	http.SetCookie(w, h.sessionCookie("", -1))
}

func (h *Handler) sessionCookie(value string, maxAge int) *http.Cookie {
	return &http.Cookie{
		Name: h.Cookie.Name, Value: value, MaxAge: maxAge,
		Path: "/", Domain: h.Cookie.Domain, Secure: true, HttpOnly: true,
		SameSite: h.Cookie.sameSite, Partitioned: h.Cookie.Partitioned,
	}
}

// cookies is what a request's Cookie header held of ours.
type cookies struct {
	// secret is the session's, if valid.
	secret seal.Secret
	valid  bool
	// unknown says why it could not be found out which of several counts: nobody
	// is nobody for that.
	err error
	// sent are all that were sent, few and without repetition.
	candidates [maxSessionCookies]seal.Secret
	count      int
	// present: there was a session cookie of whatever kind, or a neighbour's.
	present bool
	// ended: its session has turned out to be at its end.
	ended bool
	// logins are the login cookies, in order.
	logins []*http.Cookie
	// others are the header's lines without our cookies.
	others []string
}

// readCookies takes our cookies out of the request's. What is left keeps its
// bytes and its order: the app's cookies are none of our business.
func (h *Handler) readCookies(r *http.Request) cookies {
	c := h.parseCookies(r)
	switch c.count {
	case 0:
	case 1:
		c.secret, c.valid = c.candidates[0], true
	default:
		c.secret, c.valid, c.err = h.selectSession(r.Context(), c.candidates[:c.count])
	}
	return c
}

// sortCookies does not look which session cookie counts.
func (h *Handler) parseCookies(r *http.Request) (c cookies) {
	for _, line := range r.Header["Cookie"] {
		if rest := h.parseCookieLine(r, line, &c); rest != "" {
			c.others = append(c.others, rest)
		}
	}
	return c
}

func (c *cookies) addCandidate(secret seal.Secret) {
	if c.count < maxSessionCookies && !slices.Contains(c.candidates[:c.count], secret) {
		c.candidates[c.count] = secret
		c.count++
	}
}

// pickSession finds the one of several session cookies that has a session: the
// others were set under other attributes, or by a neighbour on a shared domain.
// If two have one, somebody may be trying to slip in theirs, and none counts.
// The error is that of a store that cannot tell.
func (h *Handler) selectSession(ctx context.Context, secrets []seal.Secret) (picked seal.Secret, ok bool, err error) {
	for _, s := range secrets {
		_, err := h.Keeper.Peek(ctx, s)
		switch {
		case errors.Is(err, keeper.ErrNoSession):
			continue
		case err != nil:
			return seal.Secret{}, false, err
		case ok:
			return seal.Secret{}, false, nil
		}
		picked, ok = s, true
	}
	return picked, ok, nil
}

func (h *Handler) parseCookieLine(r *http.Request, line string, c *cookies) string {
	var neighbours []string
	if h.OtherCookies != nil {
		neighbours = h.OtherCookies(r, "")
	}
	inLine := func(name string) bool { return strings.Contains(line, name) }
	if !inLine(h.Cookie.Name) && !inLine(loginCookiePrefix) && !slices.ContainsFunc(neighbours, inLine) {
		return line
	}
	var kept strings.Builder
	for len(line) > 0 {
		pair, rest, _ := strings.Cut(line, ";")
		name, value, _ := strings.Cut(strings.Trim(pair, " \t"), "=")
		switch {
		case name == h.Cookie.Name:
			c.present = true
			if secret, ok := seal.ParseSecret(value); ok {
				c.addCandidate(secret)
			}
		case strings.HasPrefix(name, loginCookiePrefix):
			if len(c.logins) < maxLoginCookies {
				c.logins = append(c.logins, &http.Cookie{Name: name, Value: value})
			}
		case slices.Contains(neighbours, name):
			c.present = true
		case kept.Len() == 0:
			kept.Grow(len(pair) + len(rest) + 1)
			kept.WriteString(strings.TrimLeft(pair, " \t"))
		default:
			kept.WriteByte(';')
			kept.WriteString(pair)
		}
		line = rest
	}
	return kept.String()
}
