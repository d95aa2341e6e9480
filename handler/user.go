package handler

import (
	"context"
	"encoding/json"

	"github.com/oauth-session/caddy-oauth-session/session/keeper"
)

// User is the user of a session, as the authorization server describes them.
type User struct {
	// Subject is the `sub` claim. It is empty with plain OAuth 2.0 unless
	// Config.UserInfo is set.
	Subject string
	// Claims is a JSON object, or empty. It must not be modified, because all
	// requests of a session share it.
	Claims json.RawMessage
}

// Claim returns a claim by its name, or by a path of names joined with dots such as
// realm_access.roles.
func (u User) Claim(name string) (json.RawMessage, bool) { return findClaim(u.Claims, name) }

// FromContext returns the user of a relayed request. It reports false for a request
// that was relayed without a session. A client cannot set the user: the value comes
// from the session's record, and never from a header.
func FromContext(ctx context.Context) (User, bool) {
	if u, _ := ctx.Value(userKey{}).(*User); u != nil {
		return *u, true
	}
	return User{}, false
}

type userKey struct{}

// userContext adds a user to a context. It is part of a relayState, because
// context.WithValue would allocate once more for each request.
type userContext struct {
	context.Context
	user User
}

// Value implements context.Context.
func (c *userContext) Value(key any) any {
	if key == (userKey{}) {
		return &c.user
	}
	return c.Context.Value(key)
}

func userOf(s *keeper.Session) User { return User{Subject: s.Subject, Claims: s.Claims} }

// withoutUser hides the user of another Handler, which may have relayed the request
// to this one with a session.
func withoutUser(ctx context.Context) context.Context {
	if _, ok := FromContext(ctx); !ok {
		return ctx
	}
	return context.WithValue(ctx, userKey{}, (*User)(nil))
}
