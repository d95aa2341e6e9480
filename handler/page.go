package handler

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
)

// page is one small page of ours: a title, a sentence, and what can be done.
type page struct {
	Title  string
	Detail string
	Code   string // a word to quote when asking for help
	// RefreshTo is where the page goes by itself, after RefreshAfter seconds.
	// Without it, it reloads after that many.
	RefreshAfter   int
	RefreshTo      string
	Link, LinkText string
	Post, PostText string
}

const pageStyle = `body{font:1.1rem/1.5 system-ui,sans-serif;max-width:32rem;margin:15vh auto;padding:0 1rem;color:#1a1a1a;background:#fff}` +
	`h1{font-size:1.5rem}a,button{font:inherit;color:#0b57d0}button{padding:.4rem 1rem;cursor:pointer}small{color:#555}` +
	`@media(prefers-color-scheme:dark){body{color:#eee;background:#1a1a1a}a,button{color:#8ab4f8}button{background:#333}small{color:#aaa}}`

var pageTemplate = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="robots" content="noindex">
{{if .RefreshTo}}<meta http-equiv="refresh" content="{{.RefreshAfter}};url={{.RefreshTo}}">
{{else if .RefreshAfter}}<meta http-equiv="refresh" content="{{.RefreshAfter}}">
{{end}}<title>{{.Title}}</title>
<style>{{.Style}}</style>
<main>
<h1>{{.Title}}</h1>
<p>{{.Detail}}</p>
{{if .Link}}<p><a href="{{.Link}}">{{.LinkText}}</a></p>
{{end}}{{if .Post}}<form method="post" action="{{.Post}}"><button>{{.PostText}}</button></form>
{{end}}{{with .Code}}<p><small>{{.}}</small></p>
{{end}}</main>
</html>
`))

// contentSecurityPolicy allows the one style above and forms to this site.
// Following a logout form leads to the authorization server by a redirect,
// which some browsers hold against form-action: hence https: too.
var contentSecurityPolicy = fmt.Sprintf("default-src 'none'; style-src 'sha256-%s'; form-action 'self' https: http://localhost:* http://127.0.0.1:*; frame-ancestors 'none'; base-uri 'none'", styleHash())

func styleHash() string {
	sum := sha256.Sum256([]byte(pageStyle))
	return base64.StdEncoding.EncodeToString(sum[:])
}

func writePage(w http.ResponseWriter, r *http.Request, status int, p page) error {
	var body bytes.Buffer
	err := pageTemplate.Execute(&body, struct {
		page
		Style template.CSS
	}{p, pageStyle})
	if err != nil {
		return fmt.Errorf("writing page: %w", err)
	}
	if p.Post != "" {
		// With no-referrer a browser would send the form with Origin: null.
		w.Header().Set("Referrer-Policy", "same-origin")
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body.Bytes())
	}
	return nil
}

// loginLink leads through a new login to a path of this site.
func loginLink(prefix, returnTo, prompt string) string {
	q := url.Values{"return_to": {returnTo}}
	if prompt != "" {
		q.Set("prompt", prompt)
	}
	return prefix + "/login?" + q.Encode()
}
