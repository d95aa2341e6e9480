package caddymodule

import (
	"slices"
	"testing"
)

// Two patterns meet if some host matches both. The order does not matter.
func TestPatternsMeetIfAHostMatchesBoth(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		want bool
	}{
		{"a.test", "a.test", true}, {"a.test", "b.test", false}, {"a.test", "x.a.test", false},
		{"", "a.test", true}, {"", "*.test", true}, {"", ".test", true}, {"", "", true},
		{"*.test", "a.test", true}, {"*.test", "test", false}, {"*.test", "x.a.test", false}, {"*.a.test", "b.*.test", true},
		{"*.a.test", "*.b.test", false}, {"a.*", "*.test", true}, {"*", "localhost", true}, {"*", "a.test", false},
		{".a.test", "a.test", true}, {".a.test", "x.y.a.test", true}, {".a.test", "test", false}, {".a.test", "ba.test", false},
		{".a.test", "*.test", true}, {".a.test", "*.*.test", true}, {".a.test", "*.b.test", false},
		{".a.test", ".x.a.test", true}, {".a.test", ".test", true}, {".a.test", ".b.test", false},
		{"::1", "::1", true}, {"127.0.0.1", "127.0.0.2", false},
	} {
		if patternsMeet(tc.a, tc.b) != tc.want || patternsMeet(tc.b, tc.a) != tc.want {
			t.Errorf("%q and %q: got meet %v, want %v", tc.a, tc.b, !tc.want, tc.want)
		}
	}
}

func TestHostIsNormalized(t *testing.T) {
	for in, want := range map[string]string{
		"A.Test": "a.test", "a.test:8443": "a.test", "a.test.": "a.test", "A.test.:80": "a.test", "[::1]:80": "::1", "[::1]": "::1", "::1": "::1", "": "",
	} {
		if got := normalHost(in); got != want {
			t.Errorf("%q: got host %q, want %q", in, got, want)
		}
	}
}

// A host has the cookie names of all patterns that match it. A cookie for a domain
// applies to all hosts below the domain.
func TestHostReservesNamesOfAllMatchingPatterns(t *testing.T) {
	var n nameRegistry
	for _, use := range []cookieUse{
		{"exact", hosts{"a.test", "b.test"}}, {"wild", hosts{"*.test"}}, {"domain", hosts{"x.one.test", ".one.test"}}, {"any", anyHost},
	} {
		n.add(use)
	}
	for _, tc := range []struct {
		host, domain string
		want         []string
	}{
		{host: "a.test", want: []string{"any", "exact", "wild"}},
		{host: "c.test", want: []string{"any", "wild"}},
		{host: "x.one.test", want: []string{"any", "domain"}},
		{host: "y.x.one.test", want: []string{"any", "domain"}},
		{host: "one.test", want: []string{"any", "domain", "wild"}},
		{host: "two.example", want: []string{"any"}},
		{domain: "one.test", want: []string{"any", "domain", "wild"}},
		{domain: "test", want: []string{"any", "domain", "exact", "wild"}},
		{domain: ".Two.Example", want: []string{"any"}},
	} {
		got := n.current().at(tc.host)
		if tc.domain != "" {
			got = n.current().below(tc.domain)
		}
		if got = slices.Sorted(slices.Values(got)); !slices.Equal(got, tc.want) {
			t.Errorf("%q%s: got names %q, want %q", tc.host, tc.domain, got, tc.want)
		}
	}
	if allocs := testing.AllocsPerRun(100, func() { n.current().at("a.test") }); allocs > 0 {
		t.Errorf("got %v allocations per request, want none", allocs)
	}
	n.remove(cookieUse{"any", anyHost})
	if got := n.current().at("two.example"); got != nil {
		t.Errorf("got names %q, want none", got)
	}
}
