package caddymodule

import (
	"context"
	"fmt"
	"net/http"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/oauth-session/caddy-oauth-session/handler"
)

// userRequest is a request with a Replacer, as Caddy's server makes it.
func userRequest() (*http.Request, *caddy.Replacer) {
	repl := caddy.NewReplacer()
	ctx := context.WithValue(context.Background(), caddy.ReplacerCtxKey, repl)
	return (&http.Request{}).WithContext(ctx), repl
}

func userNamed(subject, email string) *handler.User {
	claims := fmt.Appendf(nil, `{"email":%q}`, email)
	return &handler.User{Subject: subject, Claims: claims}
}

const allOfUser = "{http.auth.user.id}|{http.auth.user.email}|{http.auth.user.role}|{http.auth.user.a.b}"

// setByOthers sets what an authentication plugin may set: the id, and metadata of any names.
func setByOthers(repl *caddy.Replacer) {
	for _, name := range []string{"id", "email", "role", "a.b", ""} {
		repl.Set("http.auth.user."+name, "bob")
	}
	repl.Set("http.auth.candidate.id", "bob")
}

func TestUserIsTheSessionsWhateverWasSetBefore(t *testing.T) {
	for name, tt := range map[string]struct {
		user *handler.User
		want string
	}{
		"nobody": {nil, "|||"},
		"alice":  {userNamed("alice", "alice@example.test"), "alice|alice@example.test||"},
	} {
		t.Run(name, func(t *testing.T) {
			r, repl := userRequest()
			setByOthers(repl)
			setUser(r, tt.user)
			if got := repl.ReplaceKnown(allOfUser, ""); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
			if got, _ := repl.GetString("http.auth.candidate.id"); got != "bob" {
				t.Errorf("a value of another name became %q", got)
			}
			if got := repl.ReplaceAll("{http.oauth_session.user}", ""); got != "" {
				t.Errorf("the internal placeholder shows %q", got)
			}
		})
	}
}

// Behind the handler the user of a session stays; nobody may become somebody.
func TestUserIsTheSessionsWhateverIsSetAfter(t *testing.T) {
	r, repl := userRequest()
	setUser(r, userNamed("alice", "alice@example.test"))
	relayed := r.WithContext(relayContext(r))
	inner := replacerOf(relayed)
	setByOthers(inner)
	inner.Set("http.reverse_proxy.status_code", 200)
	if got := replacerOf(relayed).ReplaceKnown(allOfUser, ""); got != "alice|alice@example.test||" {
		t.Errorf("the next handler sees the user %q", got)
	}
	if got, _ := repl.GetString("http.reverse_proxy.status_code"); got != "200" {
		t.Errorf("what a handler set otherwise reads %q in front", got)
	}

	r, _ = userRequest()
	setUser(r, nil)
	setByOthers(replacerOf(r))
	if got := replacerOf(r).ReplaceKnown("{http.auth.user.id}", ""); got != "bob" {
		t.Errorf("the next handler sees the user %q", got)
	}
}

// Of several handlers that a request passes, the last one that it belongs to sets the user.
func TestUserOfNestedHandlers(t *testing.T) {
	r, repl := userRequest()
	claimUser(repl)
	setUser(r, userNamed("alice", "alice@example.test"))
	first := relayContext(r)
	r = r.WithContext(first)
	for _, tt := range []struct {
		user *handler.User
		want string
	}{{nil, "|||"}, {userNamed("dora", "dora@example.test"), "dora|dora@example.test||"}} {
		setUser(r, tt.user)
		setByOthers(replacerOf(r))
		if got := replacerOf(r).ReplaceKnown(allOfUser, ""); got != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
	second := relayContext(r)
	if second == first || second.Value(caddy.ReplacerCtxKey) != any(repl) {
		t.Error("the second context is not one of its own on the same Replacer")
	}
	// A handler whose matcher leaves the request open changes nothing.
	claimUser(replacerOf(r))
	if got := replacerOf(r).ReplaceKnown(allOfUser, ""); got != "dora|dora@example.test||" {
		t.Errorf("beside the next handler: %q", got)
	}
}

func TestUserOutsideOfCaddy(t *testing.T) {
	r := &http.Request{}
	setUser(r, userNamed("alice", ""))
	if relayContext(r) != r.Context() {
		t.Error("another context")
	}
}
