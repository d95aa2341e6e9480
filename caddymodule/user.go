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
	// userPrefix is the prefix of the placeholders of the user.
	userPrefix = "http.auth.user."
	// requestUserKey is the key of the requestUser in the Replacer of a request.
	requestUserKey = "http.oauth_session.user"
)

// requestUser is the source of the user's placeholders in one request. All oauth_session
// handlers of a request share one, because a Replacer uses the function that was mapped
// first. Decision 0019 gives the reasons.
type requestUser struct {
	user *handler.User // nil without a session
	// context is the first result of relayContext; the field saves an allocation.
	context userContext
}

// replacerOf returns the Replacer of a request, or nil outside Caddy's HTTP server.
func replacerOf(r *http.Request) *caddy.Replacer {
	repl, _ := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	return repl
}

// claimUser maps the placeholders of the user, and removes values that earlier directives
// have set. A static value, such as that of basic_auth, would take precedence over a mapped
// function.
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

// setUser sets the user of a request, or nil.
func setUser(r *http.Request, user *handler.User) {
	if repl := replacerOf(r); repl != nil {
		claimUser(repl).user = user
	}
}

// replace is a caddy.ReplacerFunc. It evaluates a claim only when a placeholder needs it.
// Without a session, all placeholders are empty, so a header made of them is empty, too.
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

// String keeps the claims out of text that contains the placeholder requestUserKey.
func (u *requestUser) String() string { return "" }

// userContext is the context of a request that is relayed with a session. It removes
// values that later directives set as the user, so the user of the request stays the user
// of the token. This works because every Caddy handler takes the Replacer from the context
// when it begins.
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
		// Another oauth_session handler has relayed this request, and a handler behind it
		// may still use that context.
		return &userContext{Context: r.Context(), repl: repl}
	}
	u.context = userContext{Context: r.Context(), repl: repl}
	return &u.context
}

// Value implements context.Context.
func (c *userContext) Value(key any) any {
	if key == caddy.ReplacerCtxKey {
		c.repl.DeleteByPrefix(userPrefix)
		return c.repl
	}
	return c.Context.Value(key)
}

// claimText joins a list with commas, the format of lists in headers. It leaves out an
// element that contains a comma: an app would read it as several elements, so the person
// who names one group could add others.
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

// headerSafe returns text, or "" if text contains a control character, which could end a
// header line.
func headerSafe(text string) string {
	if strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		return ""
	}
	return text
}
