package caddymodule

import "testing"

func TestSiteLabelNamesHostsAndPrefix(t *testing.T) {
	for _, c := range []struct {
		base   string
		routes hosts
		prefix string
		want   string
	}{
		{"app.test", hosts{"other.test"}, "", "app.test"},
		{"", hosts{"b.test", "a.test"}, "/oauth2", "a.test,b.test"},
		{"", hosts{"a.test"}, "/admin/auth", "a.test/admin/auth"},
		{"", hosts{"d", "c", "b", "a"}, "", "a,b,c,…"},
		{"", hosts{"a.test", ""}, "", "*"},
		{"", nil, "/x", "*/x"},
	} {
		if got := siteLabel(c.base, c.routes, c.prefix); got != c.want {
			t.Errorf("siteLabel(%q, %q, %q): got %q, want %q", c.base, c.routes, c.prefix, got, c.want)
		}
	}
}
