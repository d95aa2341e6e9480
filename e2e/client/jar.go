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

// A Jar stores cookies like a browser. The standard library's jar never sends Secure cookies over http, which browsers do
// for loopback addresses, and it supports neither cookie name prefixes nor SameSite.
//
// As in browsers, all ports of a host share cookies. The zero value is an empty jar.
type Jar struct {
	mu      sync.Mutex
	cookies []*stored // oldest first
}

type stored struct {
	*http.Cookie
	host     string // the Domain attribute, or else the host that set the cookie
	hostOnly bool
	expires  time.Time // zero: at the end of the browser session
}

// Update stores the cookies of an answer from u. It ignores cookies that a browser would refuse.
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
	switch {
	case i >= 0 && c.expired():
		j.cookies = slices.Delete(j.cookies, i, i+1)
	case i >= 0:
		j.cookies[i] = c
	case !c.expired():
		j.cookies = append(j.cookies, c)
	}
}

func (c *stored) expired() bool { return !c.expires.IsZero() && !c.expires.After(time.Now()) }

// An initiator is the source of a request, as far as SameSite distinguishes it.
type initiator int

const (
	sameSite           initiator = iota
	crossSiteSafe                // another site starts a top-level navigation with a safe method
	crossSiteForbidden           // another site starts any other request
)

// Cookies returns the cookies for a same-site request to u.
func (j *Jar) Cookies(u *url.URL) []*http.Cookie { return j.cookiesFor(u, sameSite) }

// Cookie returns the cookie with the name for a same-site request to u, or nil.
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
	case c.expired():
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
	default: // Lax, which is the default
		return from == crossSiteSafe
	}
}

// acceptable reports whether a browser would store the cookie.
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

// trustworthy reports whether browsers consider the origin potentially trustworthy (Secure Contexts).
func trustworthy(u *url.URL) bool {
	host := u.Hostname()
	if u.Scheme == "https" || host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

// site returns the site of a URL: two URLs are same-site if it is equal. Test hosts are addresses and names below
// localhost, so it needs no list of public suffixes.
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
