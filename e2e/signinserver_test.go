package e2e

import (
	"crypto/rand"
	"fmt"
	"html"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// A signInServer is a fake authorization server with a sign-in page. Its user can sign in, cancel, or meet an error. Like most
// servers, it does not ask again a browser that has signed in, unless the request has prompt=login.
type signInServer struct {
	*fakeas.Server

	mu    sync.Mutex
	users map[string]string // the users of signed-in browsers, by the value of signedInCookie
	// forced makes one pair of an error and its request.
	forced sync.Mutex
}

const (
	signedInCookie = "signed_in"
	// signInPage has buttons with the IDs of the answers: ok, access_denied, server_error.
	signInPage = `<!doctype html><title>Sign in</title><form method="post" action="/authorize?%s"><input name="user" type="text" value="alice">` +
		`<button name="answer" id="ok" value="ok">Sign in</button><button name="answer" id="access_denied" value="access_denied">Cancel</button>` +
		`<button name="answer" id="server_error" value="server_error">Fail</button></form>`
)

func startSignInServer(t testing.TB) *signInServer {
	t.Helper()
	s := &signInServer{users: map[string]string{}}
	server := httptest.NewServer(s)
	s.Server = fakeas.New(fakeas.Options{URL: server.URL})
	t.Cleanup(func() {
		s.Close()
		server.Close()
	})
	return s
}

// ServeHTTP puts the sign-in page in front of the authorization endpoint.
func (s *signInServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/authorize" {
		s.Server.ServeHTTP(w, r)
		return
	}
	user := s.userOf(r)
	answer := r.PostFormValue("answer")
	switch {
	case answer == "ok":
		user = r.PostFormValue("user")
		s.signIn(w, user)
	case answer != "":
		s.forced.Lock()
		defer s.forced.Unlock()
		s.Fail(fakeas.OAuthError(answer).At(fakeas.EndpointAuthorize))
	case user == "" || r.URL.Query().Get("prompt") == "login":
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("Cache-Control", "no-store")
		fmt.Fprintf(w, signInPage, html.EscapeString(r.URL.RawQuery))
		return
	}
	s.Server.ServeHTTP(w, authorizationOf(r, user))
}

// authorizationOf returns the authorization request of a form or a link, for the user.
func authorizationOf(r *http.Request, user string) *http.Request {
	query := r.URL.Query()
	query.Set("login_hint", user)
	asked := &http.Request{Method: http.MethodGet, URL: &url.URL{Path: r.URL.Path, RawQuery: query.Encode()}, Header: http.Header{}, Body: http.NoBody}
	return asked.WithContext(r.Context())
}

func (s *signInServer) userOf(r *http.Request) string {
	cookie, err := r.Cookie(signedInCookie)
	if err != nil {
		return ""
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.users[cookie.Value]
}

func (s *signInServer) signIn(w http.ResponseWriter, user string) {
	id := rand.Text()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users[id] = user
	http.SetCookie(w, &http.Cookie{Name: signedInCookie, Value: id, HttpOnly: true})
}

// signOutAll makes the server ask every browser again.
func (s *signInServer) signOutAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.users)
}
