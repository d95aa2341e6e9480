package caddymodule

import (
	"context"
	"fmt"
	"net/http"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/oauth-session/caddy-oauth-session/handler"
)

// newCaddyRequest returns a request with a Replacer, as Caddy's server does.
func newCaddyRequest() (*http.Request, *caddy.Replacer) {
	repl := caddy.NewReplacer()
	ctx := context.WithValue(context.Background(), caddy.ReplacerCtxKey, repl)
	return (&http.Request{}).WithContext(ctx), repl
}

func newUser(subject, email string) *handler.User {
	claims := fmt.Appendf(nil, `{"email":%q}`, email)
	return &handler.User{Subject: subject, Claims: claims}
}

const userPlaceholders = "{http.auth.user.id}|{http.auth.user.email}|{http.auth.user.role}|{http.auth.user.a.b}"

// setUserLikePlugin sets an ID and metadata, as an authentication plugin does.
func setUserLikePlugin(repl *caddy.Replacer) {
	for _, name := range []string{"id", "email", "role", "a.b", ""} {
		repl.Set("http.auth.user."+name, "bob")
	}
	repl.Set("http.auth.candidate.id", "bob")
}

func TestEarlierHandlersCannotSetUser(t *testing.T) {
	for name, tt := range map[string]struct {
		user *handler.User
		want string
	}{
		"no session": {nil, "|||"},
		"alice":      {newUser("alice", "alice@example.test"), "alice|alice@example.test||"},
	} {
		t.Run(name, func(t *testing.T) {
			r, repl := newCaddyRequest()
			setUserLikePlugin(repl)
			setUser(r, tt.user)
			if got := repl.ReplaceKnown(userPlaceholders, ""); got != tt.want {
				t.Errorf("got user %q, want %q", got, tt.want)
			}
			if got, _ := repl.GetString("http.auth.candidate.id"); got != "bob" {
				t.Errorf("got http.auth.candidate.id %q, want bob", got)
			}
			if got := repl.ReplaceAll("{http.oauth_session.user}", ""); got != "" {
				t.Errorf("got internal placeholder %q, want none", got)
			}
		})
	}
}

// Later handlers cannot change the user of a session. Without a session they may set one.
func TestLaterHandlersCannotReplaceUser(t *testing.T) {
	r, repl := newCaddyRequest()
	setUser(r, newUser("alice", "alice@example.test"))
	relayed := r.WithContext(relayContext(r))
	inner := replacerOf(relayed)
	setUserLikePlugin(inner)
	inner.Set("http.reverse_proxy.status_code", 200)
	if got := replacerOf(relayed).ReplaceKnown(userPlaceholders, ""); got != "alice|alice@example.test||" {
		t.Errorf("got user %q in the next handler, want alice", got)
	}
	if got, _ := repl.GetString("http.reverse_proxy.status_code"); got != "200" {
		t.Errorf("got status_code %q in an earlier handler, want 200", got)
	}

	r, _ = newCaddyRequest()
	setUser(r, nil)
	setUserLikePlugin(replacerOf(r))
	if got := replacerOf(r).ReplaceKnown("{http.auth.user.id}", ""); got != "bob" {
		t.Errorf("without a session: got user %q in the next handler, want bob", got)
	}
}

// When a request passes several handlers, the last one with a matching matcher sets the user.
func TestLastMatchingHandlerSetsUser(t *testing.T) {
	r, repl := newCaddyRequest()
	claimUser(repl)
	setUser(r, newUser("alice", "alice@example.test"))
	first := relayContext(r)
	r = r.WithContext(first)
	for _, tt := range []struct {
		user *handler.User
		want string
	}{{nil, "|||"}, {newUser("dora", "dora@example.test"), "dora|dora@example.test||"}} {
		setUser(r, tt.user)
		setUserLikePlugin(replacerOf(r))
		if got := replacerOf(r).ReplaceKnown(userPlaceholders, ""); got != tt.want {
			t.Errorf("got user %q, want %q", got, tt.want)
		}
	}
	second := relayContext(r)
	if second == first || second.Value(caddy.ReplacerCtxKey) != any(repl) {
		t.Error("got the first context or another Replacer, want a new context with the same Replacer")
	}
	// A handler whose matcher does not match changes nothing.
	claimUser(replacerOf(r))
	if got := replacerOf(r).ReplaceKnown(userPlaceholders, ""); got != "dora|dora@example.test||" {
		t.Errorf("after an unmatched handler: got user %q, want dora", got)
	}
}

func TestRequestWithoutReplacerKeepsContext(t *testing.T) {
	r := &http.Request{}
	setUser(r, newUser("alice", ""))
	if relayContext(r) != r.Context() {
		t.Error("got another context, want that of the request")
	}
}
