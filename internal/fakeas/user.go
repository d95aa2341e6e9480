package fakeas

import "maps"

// DefaultUser logs in when the client sends no login_hint.
const DefaultUser = "alice"

// User is a user account. Every name is a valid account: without SetUser, the
// subject is the name.
type User struct {
	// Name identifies the user in login_hint.
	Name string `json:"name"`
	// Subject is the sub claim. Empty: the name.
	Subject string `json:"sub"`
	// Claims go into ID tokens and UserInfo answers.
	Claims map[string]any `json:"claims"`
	// Disabled users can neither log in nor refresh. Their access tokens stay
	// valid.
	Disabled bool `json:"disabled"`
}

// SetUser adds a user. It replaces a user with the same name.
func (s *Server) SetUser(u User) {
	u.Claims = maps.Clone(u.Claims)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users[u.Name] = u
}

// user needs s.mu.
func (s *Server) user(name string) User {
	u, ok := s.users[name]
	if !ok {
		u = User{Name: name}
	}
	if u.Subject == "" {
		u.Subject = u.Name
	}
	if u.Claims == nil {
		u.Claims = map[string]any{
			"name":           u.Name,
			"email":          u.Name + "@example.test",
			"email_verified": true,
			"groups":         []string{"users"},
		}
	}
	return u
}

// claims returns a copy of the user's claims. It needs s.mu.
func (s *Server) claims(k Knobs, u User) map[string]any {
	m := maps.Clone(u.Claims)
	if _, ok := m["groups"]; ok && k.GroupsOverage {
		delete(m, "groups")
		m["_claim_names"] = map[string]any{"groups": "src1"}
		m["_claim_sources"] = map[string]any{"src1": map[string]any{"endpoint": s.URL + "/groups"}}
	}
	return m
}
