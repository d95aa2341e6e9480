package main

import (
	"bytes"
	"embed"
	"encoding/json"
	"html/template"
	"net/http"
	"slices"
	"strings"
	"time"
)

//go:embed page.html page.css page.js
var files embed.FS

var page = template.Must(template.ParseFS(files, "page.html"))

// received is one request as it arrived at the app.
type received struct {
	Time          time.Time `json:"time"`
	Token         string    `json:"token"` // in full; a real app must never show it
	JWT           *decoded  `json:"jwt,omitempty"`
	User          []field   `json:"user"`
	Other         []field   `json:"other"`
	Cookies       []string  `json:"cookies"` // names
	SessionCookie bool      `json:"session_cookie"`
}

// field is one header field.
type field struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

func receive(r *http.Request) received {
	got := received{Time: time.Now(), User: []field{}, Other: []field{}, Cookies: []string{}}
	got.Token, _ = strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	got.JWT = decode(got.Token)
	for name, values := range r.Header {
		f := field{name, strings.Join(values, ", ")}
		switch {
		case name == "Authorization" || name == "Cookie": // the page shows them separately
		case slices.Contains(userHeaders, name):
			got.User = append(got.User, f)
		default:
			got.Other = append(got.Other, f)
		}
	}
	byName := func(a, b field) int { return strings.Compare(a.Name, b.Name) }
	slices.SortFunc(got.User, byName)
	slices.SortFunc(got.Other, byName)
	for _, c := range r.Cookies() {
		got.Cookies = append(got.Cookies, c.Name)
		got.SessionCookie = got.SessionCookie || strings.Contains(c.Name, "oauth_")
	}
	return got
}

// userHeaders are the headers that Caddyfile.example sets.
var userHeaders = []string{"X-User", "X-Email"}

// newApp returns an app that shows its requests. The answer to its sign-out form redirects to the issuer: the page's
// Content-Security-Policy must allow that.
func newApp(issuer string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		var body bytes.Buffer
		if err := page.Execute(&body, receive(r)); err != nil {
			http.Error(w, "The app cannot show the page.", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write(body.Bytes())
	})
	mux.HandleFunc("GET /received", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(receive(r))
	})
	for _, name := range []string{"page.css", "page.js"} {
		mux.HandleFunc("GET /"+name, func(w http.ResponseWriter, r *http.Request) { http.ServeFileFS(w, r, files, name) })
	}
	policy := "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; form-action 'self' " + issuer +
		"; base-uri 'none'; frame-ancestors 'none'"
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		mux.ServeHTTP(w, r)
	})
}
