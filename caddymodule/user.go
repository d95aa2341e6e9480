package caddymodule

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/oauth-session/caddy-oauth-session/handler"
)

const (
	// userPrefix begins the placeholders of the user.
	userPrefix = "http.auth.user."
	// requestUserKey is where a Replacer keeps the requestUser of its request.
	requestUserKey = "http.oauth_session.user"
)

// requestUser is the user of a request, as the placeholders show it. All
// oauth_session handlers that a request passes share one, because a Replacer
// asks the function that was mapped first. Decision 0019 gives the reasons.
type requestUser struct {
	user *handler.User // nil: none
	// context is the first one of relayContext, to save an allocation.
	context userContext
}

// replacerOf returns the Replacer of a request, or nil outside of Caddy's HTTP
// server.
func replacerOf(r *http.Request) *caddy.Replacer {
	repl, _ := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	return repl
}

// claimUser makes the placeholders of the user known, and removes the values
// that directives before this one have set. A static value, such as that of
// basic_auth, would win over a mapped one.
func claimUser(repl *caddy.Replacer) *requestUser {
	repl.DeleteByPrefix(userPrefix)
	known, _ := repl.Get(requestUserKey)
	if u, ok := known.(*requestUser); ok {
		return u
	}
	u := &requestUser{}
	repl.Map(u.replace)
	return u
}

// setUser sets the user of a request: the user of the session, or none.
func setUser(r *http.Request, user *handler.User) {
	if repl := replacerOf(r); repl != nil {
		claimUser(repl).user = user
	}
}

// replace is a caddy.ReplacerFunc. It evaluates a claim only when a placeholder
// needs it. For nobody all placeholders are empty, so that a header made of
// them is empty, too.
func (u *requestUser) replace(key string) (any, bool) {
	if key == requestUserKey {
		return u, true
	}
	name, ok := strings.CutPrefix(key, userPrefix)
	switch {
	case !ok:
		return nil, false
	case u.user == nil:
		return "", true
	case name == "id":
		return headerSafe(u.user.Subject), true
	}
	value, ok := u.user.Claim(name)
	if !ok {
		return "", true
	}
	return headerSafe(claimText(value)), true
}

// String keeps the claims out of whatever prints requestUserKey.
func (u *requestUser) String() string { return "" }

// userContext is the context of a request that is relayed with a session. It
// removes the values that directives behind this one set as the user: the user
// of the request stays the one whose token the app gets. Every handler of Caddy
// takes the Replacer from the context when it begins.
type userContext struct {
	context.Context
	repl *caddy.Replacer
}

// relayContext returns the context of a request that is relayed with a session.
func relayContext(r *http.Request) context.Context {
	repl := replacerOf(r)
	if repl == nil {
		return r.Context()
	}
	u := claimUser(repl)
	if u.context.Context != nil {
		// Another oauth_session handler has relayed this request, and what it
		// relayed may still hold that context.
		return &userContext{Context: r.Context(), repl: repl}
	}
	u.context = userContext{Context: r.Context(), repl: repl}
	return &u.context
}

// Value returns the value of a key, as a context.Context does.
func (c *userContext) Value(key any) any {
	if key == caddy.ReplacerCtxKey {
		c.repl.DeleteByPrefix(userPrefix)
		return c.repl
	}
	return c.Context.Value(key)
}

// claimText joins a list with commas, which is how lists go into a header. An
// element that contains a comma is left out: an app would read it as several, so
// whoever chooses the name of one group could add others.
func claimText(value json.RawMessage) string {
	var list []json.RawMessage
	if json.Unmarshal(value, &list) != nil {
		text, _ := handler.ClaimText(value)
		return text
	}
	var texts []string
	for _, v := range list {
		if text, ok := handler.ClaimText(v); ok && !strings.Contains(text, ",") {
			texts = append(texts, text)
		}
	}
	return strings.Join(texts, ",")
}

// headerSafe returns text, or nothing if it could end a header line.
func headerSafe(text string) string {
	if strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		return ""
	}
	return text
}
