package client

import (
	"cmp"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Jar keeps cookies as browsers do. The standard library's jar does not serve here: it never sends Secure cookies over
// http, which browsers do for loopback addresses, and it knows neither cookie name prefixes nor SameSite.
//
// As in browsers, cookies belong to a host whatever its port. The zero value is an empty jar.
type Jar struct {
	mu      sync.Mutex
	cookies []*stored // oldest first
}

type stored struct {
	*http.Cookie
	host     string // that set it, or the Domain attribute
	hostOnly bool
	expires  time.Time // zero: at the end of the session
}

// Update takes the cookies that an answer from u sets. Cookies that a browser would refuse are ignored.
func (j *Jar) Update(u *url.URL, setCookie []string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, line := range setCookie {
		cookie, err := http.ParseSetCookie(line)
		if err != nil || !acceptable(u, cookie) {
			continue
		}
		c := &stored{Cookie: cookie, host: u.Hostname(), hostOnly: cookie.Domain == ""}
		if !c.hostOnly {
			c.host = strings.TrimPrefix(cookie.Domain, ".")
		}
		if !strings.HasPrefix(cookie.Path, "/") {
			c.Path = defaultPath(u.Path)
		}
		switch {
		case cookie.MaxAge != 0:
			c.expires = time.Now().Add(time.Duration(cookie.MaxAge) * time.Second)
		case !cookie.Expires.IsZero():
			c.expires = cookie.Expires
		}
		j.replace(c)
	}
}

func (j *Jar) replace(c *stored) {
	i := slices.IndexFunc(j.cookies, func(old *stored) bool {
		return old.Name == c.Name && old.host == c.host && old.hostOnly == c.hostOnly && old.Path == c.Path
	})
	dead := !c.expires.IsZero() && !c.expires.After(time.Now())
	switch {
	case i >= 0 && dead:
		j.cookies = slices.Delete(j.cookies, i, i+1)
	case i >= 0:
		j.cookies[i] = c
	case !dead:
		j.cookies = append(j.cookies, c)
	}
}

// An initiator says how a request came about, as far as SameSite is concerned.
type initiator int

const (
	sameSite           initiator = iota
	crossSiteSafe                // a top-level navigation with a safe method, started by another site
	crossSiteForbidden           // anything else started by another site
)

// Cookies returns the cookies that a browser would send to u with a request from its own site.
func (j *Jar) Cookies(u *url.URL) []*http.Cookie { return j.cookiesFor(u, sameSite) }

// Cookie returns the cookie that would be sent to u under this name, or nil.
func (j *Jar) Cookie(u *url.URL, name string) *http.Cookie {
	for _, c := range j.Cookies(u) {
		if c.Name == name {
			return c
		}
	}
	return nil
}

func (j *Jar) cookiesFor(u *url.URL, from initiator) []*http.Cookie {
	j.mu.Lock()
	defer j.mu.Unlock()
	var send []*stored
	for _, c := range j.cookies {
		if c.matches(u) && c.allowedIn(from) {
			send = append(send, c)
		}
	}
	slices.SortStableFunc(send, func(a, b *stored) int { return cmp.Compare(len(b.Path), len(a.Path)) })
	var cookies []*http.Cookie
	for _, c := range send {
		cookies = append(cookies, c.Cookie)
	}
	return cookies
}

func (c *stored) matches(u *url.URL) bool {
	host := u.Hostname()
	path := cmp.Or(u.Path, "/")
	switch {
	case !c.expires.IsZero() && !c.expires.After(time.Now()):
		return false
	case c.Secure && !trustworthy(u):
		return false
	case host != c.host && (c.hostOnly || !strings.HasSuffix(host, "."+c.host)):
		return false
	default:
		return path == c.Path || strings.HasPrefix(path, strings.TrimSuffix(c.Path, "/")+"/")
	}
}

func (c *stored) allowedIn(from initiator) bool {
	switch {
	case from == sameSite || c.SameSite == http.SameSiteNoneMode:
		return true
	case c.SameSite == http.SameSiteStrictMode:
		return false
	default: // a cookie without the attribute counts as Lax
		return from == crossSiteSafe
	}
}

// acceptable applies the rules by which a browser refuses a cookie as a whole.
func acceptable(u *url.URL, c *http.Cookie) bool {
	if c.Secure && !trustworthy(u) {
		return false
	}
	domain := strings.TrimPrefix(c.Domain, ".")
	if domain != "" && domain != u.Hostname() && !strings.HasSuffix(u.Hostname(), "."+domain) {
		return false
	}
	if c.SameSite == http.SameSiteNoneMode && !c.Secure {
		return false
	}
	name := strings.ToLower(c.Name)
	if strings.HasPrefix(name, "__host-") {
		return c.Secure && c.Domain == "" && c.Path == "/"
	}
	return c.Secure || !strings.HasPrefix(name, "__secure-")
}

// trustworthy reports whether browsers treat the origin like an encrypted one.
func trustworthy(u *url.URL) bool {
	host := u.Hostname()
	if u.Scheme == "https" || host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

// site returns what must be equal for two URLs to be of the same site. Test hosts are addresses and names below
// localhost, so no list of public suffixes is needed.
func site(u *url.URL) string {
	host := u.Hostname()
	if net.ParseIP(host) == nil {
		labels := strings.Split(host, ".")
		host = strings.Join(labels[max(0, len(labels)-2):], ".")
	}
	return u.Scheme + "://" + host
}

func origin(u *url.URL) string { return u.Scheme + "://" + u.Host }

func defaultPath(path string) string {
	i := strings.LastIndexByte(path, '/')
	if i <= 0 {
		return "/"
	}
	return path[:i]
}
