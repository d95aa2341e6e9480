package handler

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
	"github.com/oauth-session/caddy-oauth-session/session/keeper"
)

// gate is a proxy in front of a token endpoint that can hold refreshes. It must be
// made outside of a synctest bubble, because of its channels.
type gate struct {
	server *httptest.Server
	// limit ends the waiting of a failed test.
	limit         <-chan struct{}
	arrived, goOn chan bool

	mu sync.Mutex
	// before runs when a refresh arrives, and after runs when the server has
	// processed it and the answer has not been sent.
	before, after func()
}

func startGate(t testing.TB, as *authServer) *gate {
	t.Helper()
	g := &gate{arrived: make(chan bool), goOn: make(chan bool), before: func() {}, after: func() {}}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	g.limit = ctx.Done()
	g.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		if r.PostForm.Get("grant_type") != fakeas.GrantRefresh {
			as.ServeHTTP(w, r)
			return
		}
		g.mu.Lock()
		before, after := g.before, g.after
		g.mu.Unlock()
		before()
		recorder := httptest.NewRecorder()
		as.ServeHTTP(recorder, r)
		after()
		for name, values := range recorder.Header() {
			w.Header()[name] = values
		}
		w.WriteHeader(recorder.Code)
		_, _ = w.Write(recorder.Body.Bytes())
	}))
	// A client in a bubble must have no idle connection.
	g.server.Config.SetKeepAlivesEnabled(false)
	g.server.Start()
	t.Cleanup(func() {
		cancel()
		g.server.Close()
	})
	return g
}

// stop holds the next refresh at both points. Later ones pass.
func (g *gate) stop() {
	hold := func() {
		select {
		case g.arrived <- true:
		case <-g.limit:
			return
		}
		select {
		case <-g.goOn:
		case <-g.limit:
		}
	}
	var before, after sync.Once
	g.mu.Lock()
	defer g.mu.Unlock()
	g.before, g.after = func() { before.Do(hold) }, func() { after.Do(hold) }
}

// wait returns when a refresh is held.
func (g *gate) wait(t *testing.T) {
	t.Helper()
	select {
	case <-g.arrived:
	case <-g.limit:
		t.Fatal("got no refresh, want one at the gate")
	}
}

// release lets the held refresh continue.
func (g *gate) release() {
	select {
	case g.goOn <- true:
	case <-g.limit:
	}
}

// token is an option of a rig that sends its token requests through the gate.
func (g *gate) token(s *setup) {
	plainOAuth(s)
	s.oauth.Endpoints.Token = g.server.URL + "/token"
}

// newest is the last token of a kind that the server has issued.
func (as *authServer) newest(kind fakeas.Kind) string {
	for _, token := range slices.Backward(as.Tokens()) {
		if token.Kind == kind {
			return token.Value
		}
	}
	return ""
}

// refreshes counts the refresh requests that reached the token endpoint.
func (as *authServer) refreshes() int { return as.Stats().Grants[fakeas.GrantRefresh] }

// lastPresented is the refresh token of the last refresh request.
func (as *authServer) lastPresented() string {
	for _, entry := range slices.Backward(as.Log(fakeas.EndpointToken)) {
		if token := entry.Form.Get("refresh_token"); token != "" {
			return token
		}
	}
	return ""
}

// oldSession returns a session whose access token has a certain age and is valid
// for another hour.
func (g *rig) oldSession(age time.Duration) (cookie string) {
	g.t.Helper()
	before := g.as.newest(fakeas.KindRefresh)
	g.loggedIn()
	tokens := keeper.Tokens{
		AccessToken: g.as.newest(fakeas.KindAccess),
		Obtained:    time.Now().Add(-age), Expires: time.Now().Add(time.Hour),
	}
	if refreshToken := g.as.newest(fakeas.KindRefresh); refreshToken != before {
		tokens.RefreshToken = refreshToken
	}
	return g.sessionOf(keeper.Identity{}, tokens)
}

// with adds a session's cookie to the headers of a request.
func with(cookie string, header []string) []string {
	return append(slices.Clone(header), "Cookie: "+sessionCookie+"="+cookie)
}

// bearer is the token that a request brought to the app.
func bearer(r *http.Request) string {
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	return token
}

// ask serves a request without the checks of do, for tests with very many requests.
func (g *rig) ask(r *http.Request, app func(http.ResponseWriter, *http.Request) error) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	if err := g.handler.ServeHTTP(w, r, NextFunc(app)); err != nil {
		g.t.Errorf("%s %s: got error %v, want none", r.Method, r.URL, err)
	}
	return w
}
