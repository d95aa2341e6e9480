package handler

import (
	"html"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
)

const acceptHTML = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"

// navigation has the headers of a window that the user has sent to a URL.
var navigation = []string{"Sec-Fetch-Site: none", "Sec-Fetch-Mode: navigate", "Sec-Fetch-User: ?1", "Sec-Fetch-Dest: document", acceptHTML}

// script has the headers of a fetch by a page of the site.
var script = []string{"Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: cors", "Sec-Fetch-Dest: empty", "Accept: */*"}

// formPost has the headers of a form sent by a page of the site.
var formPost = []string{
	"Sec-Fetch-Site: same-origin", "Sec-Fetch-Mode: navigate", "Sec-Fetch-User: ?1", "Sec-Fetch-Dest: document",
	"Origin: " + appOrigin, "Content-Type: application/x-www-form-urlencoded", acceptHTML,
}

// browser follows redirects with a cookie jar, at the site of a rig and at its
// authorization server.
type browser struct {
	*rig
	jar jar
	// worker makes a service worker pass all navigations on with fetch.
	worker bool
	// frame makes all navigations those of an iframe in a page of another site.
	frame bool
	// hops are the URLs of the last walk, the first one included.
	hops []string
}

func (g *rig) browser() *browser {
	return &browser{rig: g}
}

// loggedIn returns a browser with a session.
func (g *rig) loggedIn() *browser {
	g.t.Helper()
	b := g.browser()
	b.mustReach("/")
	return b
}

// origin returns the site's origin as a browser writes it.
func (g *rig) origin() string {
	origin, _ := g.handler.publicOrigin(nil)
	return origin
}

// open types a path into the address bar and follows it to its end.
func (b *browser) open(path string) *answer {
	b.t.Helper()
	return b.walk(b.origin()+path, "none", nil)
}

// follow clicks a link on a page of another site.
func (b *browser) follow(path string) *answer {
	b.t.Helper()
	return b.walk(b.origin()+path, "cross-site", nil)
}

// start opens a path and stops before the authorization server, whose URL it
// returns.
func (b *browser) start(path string) string {
	b.t.Helper()
	a := b.walk(b.origin()+path, "none", func(next string) bool { return strings.HasPrefix(next, b.as.URL) })
	if !strings.HasPrefix(a.location(), b.as.URL+"/authorize?") {
		b.t.Fatalf("%s: status %d, Location %q: %.200s, want the authorization server", path, a.status, a.location(), a.body)
	}
	return a.location()
}

// approve visits the authorization server, which sends the browser to the
// callback, and stops there. It returns the callback's path and query.
func (b *browser) approve(authorizationURL string) string {
	b.t.Helper()
	a := b.walk(authorizationURL, "cross-site", func(next string) bool { return strings.HasPrefix(next, b.origin()) })
	path, ok := strings.CutPrefix(a.location(), b.origin())
	if !ok {
		b.t.Fatalf("authorization server: got status %d, Location %q: %s, want the callback", a.status, a.location(), a.body)
	}
	return path
}

// mustReach opens a path and fails the test unless the app answers there.
func (b *browser) mustReach(path string) {
	b.t.Helper()
	b.wantAppAt(b.open(path), path)
}

// wantAppAt fails the test unless the app has answered at a path.
func (b *browser) wantAppAt(a *answer, path string) {
	b.t.Helper()
	if a.status != http.StatusOK || a.body != "the app at "+path {
		b.t.Errorf("after %d hops ended at %.80s with status %d: %.80q, want the app at %.80s", len(b.hops), a.uri, a.status, a.title(), path)
	}
}

// title returns the heading of a page, or its whole body.
func (a *answer) title() string {
	if _, rest, ok := strings.Cut(a.body, "<h1>"); ok {
		title, _, _ := strings.Cut(rest, "</h1>")
		return title
	}
	return a.body
}

// fetch sends a request as a script of the site's page.
func (b *browser) fetch(method, path string, header ...string) *answer {
	b.t.Helper()
	return b.send(b.request(method, path, append(header, script...)...), false)
}

// send adds the cookies to a request, and stores those of the answer.
func (b *browser) send(r *http.Request, crossSite bool) *answer {
	b.t.Helper()
	if lines := b.jar.header(crossSite); lines != nil {
		r.Header["Cookie"] = lines
	}
	a := b.do(r)
	b.jar.set(a.header["Set-Cookie"])
	return a
}

// refreshNow matches a page that navigates at once.
var refreshNow = regexp.MustCompile(`<meta http-equiv="refresh" content="0;url=([^"]*)">`)

var (
	// postNow matches a page that sends its form at once.
	postNow    = regexp.MustCompile(`(onload="|<script>)document\.forms\[0\]\.submit\(\)`)
	formTarget = regexp.MustCompile(`<form method="post" action="([^"]*)">`)
	formField  = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)">`)
)

// submittedForm returns the target and the encoded fields of a form that a page sends
// at once.
func submittedForm(body string) (target, form string) {
	m := formTarget.FindStringSubmatch(body)
	if m == nil || !postNow.MatchString(body) {
		return "", ""
	}
	values := url.Values{}
	for _, field := range formField.FindAllStringSubmatch(body, -1) {
		values.Add(html.UnescapeString(field[1]), html.UnescapeString(field[2]))
	}
	return html.UnescapeString(m[1]), values.Encode()
}

// submit sends a form to the site, from a page of another origin or of the site.
func (b *browser) submit(path, form, origin string) *answer {
	b.t.Helper()
	r := b.request(http.MethodPost, path, navigation...)
	r.Header.Set("Origin", origin)
	r.Header.Set("Content-Type", urlencoded)
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader(form)), int64(len(form))
	lines := b.jar.header(false)
	if origin != b.origin() {
		r.Header.Set("Sec-Fetch-Site", "cross-site")
		lines = b.jar.crossSitePost()
	}
	if lines != nil {
		r.Header["Cookie"] = lines
	}
	a := b.do(r)
	b.jar.set(a.header["Set-Cookie"])
	return a
}

// walk follows redirects and forms that a page sends at once, until stop says so, or
// to the end.
func (b *browser) walk(to, site string, stop func(next string) bool) *answer {
	b.t.Helper()
	crossSite := site == "cross-site"
	b.hops = []string{to}
	form := ""
	for len(b.hops) <= 20 {
		var a *answer
		if path, ok := strings.CutPrefix(to, b.origin()); ok && form != "" {
			from := "null"
			if !crossSite {
				from = b.origin()
			}
			a = b.submit(path, form, from)
		} else {
			a = b.visit(to, site, crossSite)
		}
		next := a.location()
		var target string
		if target, form = submittedForm(a.body); form != "" && next == "" {
			next, crossSite = target, !strings.HasPrefix(to, b.origin()+"/")
			site = "same-origin"
		}
		if m := refreshNow.FindStringSubmatch(a.body); m != nil && next == "" {
			// The page itself navigates, so the request is same-origin.
			next, site, crossSite = html.UnescapeString(m[1]), "same-origin", false
		}
		if next == "" || stop != nil && stop(next) {
			return a
		}
		to = resolve(b.t.Fatalf, to, next)
		crossSite = crossSite || !strings.HasPrefix(to, b.origin()+"/")
		b.hops = append(b.hops, to)
	}
	b.t.Fatalf("got redirects %q, want at most 20", b.hops)
	return nil
}

// visit requests one URL as a document.
func (b *browser) visit(to, site string, crossSite bool) *answer {
	b.t.Helper()
	if target, ok := strings.CutPrefix(to, b.origin()); ok {
		target, _, _ = strings.Cut(target, "#")
		r := b.request(http.MethodGet, target, navigation...)
		r.Header.Set("Sec-Fetch-Site", site)
		if b.worker {
			r.Header.Set("Sec-Fetch-Dest", "empty")
		}
		if b.frame {
			r.Header.Set("Sec-Fetch-Dest", "iframe")
		}
		return b.send(r, crossSite)
	}
	if !strings.HasPrefix(to, b.as.URL+"/") {
		b.t.Fatalf("got a redirect to %s, want the site or its server", to)
	}
	client := http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Get(to)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return &answer{uri: to, status: resp.StatusCode, header: resp.Header, body: string(body)}
}

// resolve reads a Location like a browser, which differs from Go (URL Standard,
// basic URL parser): white space around it is dropped, tab and line feed within it,
// too, and a backslash is a slash.
func resolve(fatalf func(string, ...any), base, location string) string {
	location = strings.TrimFunc(location, func(c rune) bool { return c <= ' ' })
	location = strings.NewReplacer("\t", "", "\n", "", "\r", "").Replace(location)
	path, query, hasQuery := strings.Cut(location, "?")
	path = strings.ReplaceAll(path, `\`, "/")
	if hasQuery {
		path += "?" + query
	}
	u, err := url.Parse(base)
	if err != nil {
		fatalf("%v", err)
	}
	switch {
	case strings.HasPrefix(path, "https:") || strings.HasPrefix(path, "http:"):
		scheme, rest, _ := strings.Cut(path, ":")
		return scheme + "://" + strings.TrimLeft(rest, "/")
	case strings.HasPrefix(path, "//"):
		return u.Scheme + "://" + strings.TrimLeft(path, "/")
	case strings.HasPrefix(path, "/"):
		return u.Scheme + "://" + u.Host + path
	}
	fatalf("the Location %q is neither a URL nor a path", location)
	return ""
}
