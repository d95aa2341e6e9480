package rp

import (
	"fmt"
	"html"
	"net/http"
	"sync"
)

// An App is a minimal web application with a login: /login, the callback, and a page with the user's name. It supports
// one login at a time.
type App struct {
	client *Client
	mux    *http.ServeMux

	mu       sync.Mutex
	attempt  Attempt
	subjects map[string]string // by session cookie
}

const appCookie = "__Host-app"

// NewApp returns an app with the redirect path /oauth2/callback.
func NewApp(client *Client) *App {
	a := &App{client: client, mux: http.NewServeMux(), subjects: map[string]string{}}
	a.mux.HandleFunc("GET /{$}", a.home)
	a.mux.HandleFunc("GET /login", a.login)
	a.mux.HandleFunc("GET /oauth2/callback", a.callback)
	a.mux.HandleFunc("/api", a.api)
	return a
}

func (a *App) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.mux.ServeHTTP(w, r) }

func (a *App) user(r *http.Request) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	cookie, err := r.Cookie(appCookie)
	if err != nil {
		return ""
	}
	return a.subjects[cookie.Value]
}

func (a *App) home(w http.ResponseWriter, r *http.Request) {
	user := a.user(r)
	if user == "" {
		http.Redirect(w, r, "/login", http.StatusFound)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	fmt.Fprintf(w, "<!doctype html><title>App</title><p id=user>%s</p>", html.EscapeString(user))
}

func (a *App) login(w http.ResponseWriter, r *http.Request) {
	attempt := a.client.Authorize()
	a.mu.Lock()
	a.attempt = attempt
	a.mu.Unlock()
	http.Redirect(w, r, attempt.URL, http.StatusFound)
}

func (a *App) callback(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	attempt := a.attempt
	a.mu.Unlock()
	tokens, err := a.client.Redeem(r.Context(), attempt, r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	claims, err := a.client.UserInfo(r.Context(), tokens.AccessToken)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	a.mu.Lock()
	a.subjects[attempt.State] = fmt.Sprint(claims["sub"])
	a.mu.Unlock()
	http.SetCookie(w, &http.Cookie{Name: appCookie, Value: attempt.State, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode})
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// api answers with the method and the user, and repeats Sec-Fetch-Mode in a header.
func (a *App) api(w http.ResponseWriter, r *http.Request) {
	user := a.user(r)
	if user == "" {
		http.Error(w, "not logged in", http.StatusUnauthorized)
		return
	}
	w.Header().Set("X-Fetch-Mode", r.Header.Get("Sec-Fetch-Mode"))
	fmt.Fprintf(w, "%s %s", r.Method, user)
}
