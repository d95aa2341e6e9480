package conformance

import (
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/client"
	"github.com/oauth-session/caddy-oauth-session/internal/echo"
)

// TestModules plays every module of every plan. Each plan has one Caddy, in which each module has a site and a server of its
// own.
func TestModules(t *testing.T) {
	t.Parallel()
	for _, p := range plans {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			app := echo.Start(t, echo.Options{})
			var sites strings.Builder
			var runs []*run
			for _, m := range p.modules {
				site, as := newSite(t)
				configure(as, m) // Caddy fetches metadata and keys when it starts
				sites.WriteString(siteBlock(site, as, app, p.options+"\n"+m.options))
				runs = append(runs, &run{module: m, site: site, as: as})
			}
			startCaddy(t, sites.String())
			for _, r := range runs {
				t.Run(r.module.name, func(t *testing.T) {
					t.Parallel()
					r.T = t
					r.play()
				})
			}
		})
	}
}

// TestWholePlanWithOneClient plays the modules of basic certification one after another at one site, as an operator who runs
// the suite does. The server has another key in three of the modules, which is as many as the client fetches without a pause.
func TestWholePlanWithOneClient(t *testing.T) {
	t.Parallel()
	app := echo.Start(t, echo.Options{})
	site, as := newSite(t)
	configure(as, basicModules[0])
	startCaddy(t, siteBlock(site, as, app, "scope openid profile email"))
	for i, m := range basicModules {
		t.Run(m.name, func(t *testing.T) {
			r := &run{T: t, module: m, site: site, as: as, browser: client.New("", "")}
			if i > 0 && m.act == nil && m.end == loggedIn {
				configure(as, m)
				r.newKey(false)
			}
			r.play()
		})
	}
}
