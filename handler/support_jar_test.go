package handler

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// maxCookie is the size of the largest cookie that browsers keep, name and value.
const maxCookie = 4096

// jar keeps the cookies of one site like a browser: it silently ignores invalid
// ones.
type jar struct {
	cookies []*http.Cookie
	expires map[*http.Cookie]time.Time
	// refuse drops cookies by name, like a browser that blocks them.
	refuse func(name string) bool
	// largest is the size of the longest Cookie header that was sent, in bytes.
	largest int
}

// set stores the cookies of an answer.
func (j *jar) set(lines []string) {
	for _, line := range lines {
		c, err := http.ParseSetCookie(line)
		if err != nil || len(c.Name)+len(c.Value) > maxCookie || !acceptable(c) || j.refuse != nil && j.refuse(c.Name) {
			continue
		}
		// A cookie is replaced by one of the same name, domain, path and
		// partition only.
		j.cookies = slices.DeleteFunc(j.cookies, func(old *http.Cookie) bool {
			return old.Name == c.Name && old.Domain == c.Domain && old.Path == c.Path && old.Partitioned == c.Partitioned
		})
		if c.MaxAge < 0 {
			continue
		}
		j.cookies = append(j.cookies, c)
		if c.MaxAge > 0 {
			if j.expires == nil {
				j.expires = map[*http.Cookie]time.Time{}
			}
			j.expires[c] = time.Now().Add(time.Duration(c.MaxAge) * time.Second)
		}
	}
}

// acceptable applies the rules of name prefixes, SameSite=None and
// Partitioned. Every site of the tests is https or loopback.
func acceptable(c *http.Cookie) bool {
	switch {
	case strings.HasPrefix(c.Name, hostPrefix) && (!c.Secure || c.Path != "/" || c.Domain != ""):
		return false
	case strings.HasPrefix(c.Name, securePrefix) && !c.Secure:
		return false
	case c.SameSite == http.SameSiteNoneMode && !c.Secure, c.Partitioned && !c.Secure:
		return false
	}
	return true
}

// header returns the Cookie lines of a request. crossSite marks a navigation that
// began at another site or passed through one: it carries no strict cookies.
func (j *jar) header(crossSite bool) []string {
	var pairs []string
	j.cookies = slices.DeleteFunc(j.cookies, func(c *http.Cookie) bool {
		end, ok := j.expires[c]
		return ok && !time.Now().Before(end)
	})
	for _, c := range j.cookies {
		if !crossSite || c.SameSite != http.SameSiteStrictMode {
			pairs = append(pairs, c.Name+"="+c.Value)
		}
	}
	if pairs == nil {
		return nil
	}
	line := strings.Join(pairs, "; ")
	j.largest = max(j.largest, len(line))
	return []string{line}
}

// crossSitePost returns the Cookie lines of a form that another site has sent.
func (j *jar) crossSitePost() []string {
	var none jar
	for _, c := range j.cookies {
		if c.SameSite == http.SameSiteNoneMode {
			none.cookies = append(none.cookies, c)
		}
	}
	return none.header(true)
}

// get returns a cookie by its name, or nil.
func (j *jar) get(name string) *http.Cookie {
	for _, c := range j.cookies {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// logins returns the login cookies.
func (j *jar) logins() []*http.Cookie {
	var logins []*http.Cookie
	for _, c := range j.cookies {
		if strings.HasPrefix(c.Name, loginCookiePrefix) {
			logins = append(logins, c)
		}
	}
	return logins
}

func TestJarIgnoresCookiesLikeABrowser(t *testing.T) {
	for line, kept := range map[string]bool{
		"__Host-a=1; Path=/; Secure":                       true,
		"__Host-a=1; Path=/":                               false,
		"__Host-a=1; Path=/x; Secure":                      false,
		"__Host-a=1; Path=/; Secure; Domain=app.test":      false,
		"__Secure-a=1; Path=/; Secure; Domain=app.test":    true,
		"a=1; SameSite=None":                               false,
		"a=1; SameSite=None; Secure; Partitioned; Path=/":  true,
		"a=" + strings.Repeat("x", maxCookie-1):            true,
		"a=" + strings.Repeat("x", maxCookie):              false,
		"__Host-a=; Path=/; Secure; Max-Age=0":             false,
		"__Host-old=; Path=/; Secure; HttpOnly; Max-Age=0": false,
	} {
		var j jar
		j.set([]string{"__Host-old=1; Path=/; Secure"})
		j.set([]string{line})
		name, _, _ := strings.Cut(line, "=")
		if got := j.get(name) != nil; got != kept {
			t.Errorf("%.60s: kept is %v, want %v", line, got, kept)
		}
	}
}
