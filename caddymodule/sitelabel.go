package caddymodule

import (
	"slices"
	"strings"
)

// labelHosts bounds the hosts in the label of a site.
const labelHosts = 3

// siteLabel names a site in logs and metrics: by the host of its base URL, or by the hosts
// of its routes. A path prefix that an operator has chosen follows, because it tells two
// directives on one host apart. The label of a site for every host is "*".
func siteLabel(baseHost string, routes hosts, prefix string) string {
	names := hosts{baseHost}
	if baseHost == "" {
		names = slices.Clone(routes)
		slices.Sort(names)
	}
	if len(names) == 0 || slices.Contains(names, "") {
		names = hosts{"*"}
	}
	label := strings.Join(names[:min(len(names), labelHosts)], ",")
	if len(names) > labelHosts {
		label += ",…"
	}
	if prefix != "/oauth2" {
		label += prefix
	}
	return label
}
