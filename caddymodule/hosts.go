package caddymodule

import (
	"net"
	"slices"
	"strings"
)

// hosts is a list of patterns for host names. Patterns have no ports, because cookies
// ignore them (RFC 6265, section 8.5). A pattern is
//
//	app.example.com     this host
//	*.example.com       each * matches one label, as in Caddy's host matcher
//	.example.com        example.com and its subdomains, as a cookie's Domain
//	""                  every host
type hosts []string

// anyHost stands for a handler with unknown hosts.
var anyHost = hosts{""}

// normalHost returns a host as browsers compare it: in lower case, without port and
// final dot.
func normalHost(host string) string {
	if strings.IndexByte(host, ':') >= 0 {
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// domainPattern returns the pattern of a cookie's domain.
func domainPattern(domain string) string {
	return "." + normalHost(strings.TrimPrefix(domain, "."))
}

// isExact reports whether a pattern matches exactly one host.
func isExact(pattern string) bool {
	return pattern != "" && pattern[0] != '.' && !strings.Contains(pattern, "*")
}

// patternsMeet reports whether some host matches both patterns.
func patternsMeet(a, b string) bool {
	switch {
	case a == "" || b == "" || a == b:
		return true
	case isExact(a) && isExact(b):
		return false
	case a[0] != '.' && b[0] != '.':
		return labelsMeet(strings.Split(a, "."), strings.Split(b, "."))
	case a[0] != '.':
		a, b = b, a
	}
	// a is a domain.
	domain, other := strings.Split(a[1:], "."), strings.Split(strings.TrimPrefix(b, "."), ".")
	if b[0] == '.' && len(other) < len(domain) {
		domain, other = other, domain
	}
	return len(other) >= len(domain) && labelsMeet(domain, other[len(other)-len(domain):])
}

func labelsMeet(a, b []string) bool {
	return slices.EqualFunc(a, b, func(a, b string) bool { return a == b || a == "*" || b == "*" })
}

// meet reports whether some host matches a pattern of each list.
func (h hosts) meet(other hosts) bool {
	return slices.ContainsFunc(h, func(a string) bool {
		return slices.ContainsFunc(other, func(b string) bool { return patternsMeet(a, b) })
	})
}

// within returns the hosts of h that a matcher for inner lets through. Of two patterns
// that meet, it keeps the narrower one.
func (h hosts) within(inner hosts) hosts {
	var out hosts
	for _, a := range h {
		for _, b := range inner {
			if !patternsMeet(a, b) {
				continue
			}
			if a != "" && (b == "" || isExact(a)) {
				b = a
			}
			out = out.add(b)
		}
	}
	return out
}

func (h hosts) add(patterns ...string) hosts {
	for _, p := range patterns {
		if !slices.Contains(h, p) {
			h = append(h, p)
		}
	}
	return h
}
