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

// page is a small HTML page with a title, a sentence and up to two actions.
type page struct {
	Title  string
	Detail string
	// Code identifies the kind of problem, and Reference this page in the log, for a
	// support request.
	Code, Reference string
	// RefreshTo is the URL to which the page goes after RefreshAfter seconds.
	// Without it, the page reloads after that time. With neither, it stays.
	RefreshAfter   int
	RefreshTo      string
	Link, LinkText string
	LinkID         string // of the link's element, for scripts; may be empty
	// Post is the target of a form with a button, and with a hidden field if PostName
	// is set. PostNow sends it at once where the browser runs scripts.
	Post, PostText, PostName, PostValue string
	PostNow                             bool
}

// pageScript sends the first form of the page.
const pageScript = `document.forms[0].submit()`

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
{{if .Link}}<p><a href="{{.Link}}"{{with .LinkID}} id="{{.}}"{{end}}>{{.LinkText}}</a></p>
{{end}}{{if .Post}}<form method="post" action="{{.Post}}">{{if .PostName}}<input type="hidden" name="{{.PostName}}" value="{{.PostValue}}">{{end}}<button>{{.PostText}}</button></form>
{{end}}{{if .PostNow}}<script>{{.Script}}</script>
{{end}}{{with .Code}}<p><small>{{.}}</small>{{with $.Reference}} <small>reference {{.}}</small>{{end}}</p>
{{end}}</main>
</html>
`))

// sourceHash returns the hash by which a Content-Security-Policy allows an inline
// style or script.
func sourceHash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

// writePage answers with a page. The only script is that of PostNow: every page must
// work without one.
func writePage(w http.ResponseWriter, r *http.Request, status int, p page) error {
	var body bytes.Buffer
	err := pageTemplate.Execute(&body, struct {
		page
		Style  template.CSS
		Script template.JS
	}{p, pageStyle, pageScript})
	if err != nil {
		return fmt.Errorf("writing page: %w", err)
	}
	if p.Post != "" {
		// With no-referrer a browser would send the form with Origin: null, which
		// isCrossOrigin refuses without Sec-Fetch-Site. The path is left out, because the
		// URL of a callback has the code, and access logs have the Referer header.
		w.Header().Set("Referrer-Policy", "origin")
	}
	if p.PostNow {
		policy := w.Header().Get("Content-Security-Policy") // that of beginAnswer
		w.Header().Set("Content-Security-Policy", policy+"; script-src '"+sourceHash(pageScript)+"'")
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body.Bytes())
	}
	return nil
}

// loginLink returns the URL of a new login that leads to a path of this site.
func loginLink(prefix, returnTo, prompt string) string {
	q := url.Values{"return_to": {returnTo}}
	if prompt != "" {
		q.Set("prompt", prompt)
	}
	return prefix + loginPath + "?" + q.Encode()
}
