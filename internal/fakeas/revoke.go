package fakeas

import (
	"net/http"
)

// revoke is RFC 7009. An unknown token is no error; a token of another client
// is left alone.
func (s *Server) revoke(c *call) answer {
	c.form = c.r.PostForm
	if f := checkTokenRequest(c); f != nil {
		return f.answer()
	}
	client, f := s.authenticate(c)
	if f != nil {
		return f.answer()
	}
	value := c.form.Get("token")
	if value == "" {
		return refuse(http.StatusBadRequest, "invalid_request", "no token").answer()
	}
	s.mu.Lock()
	t := s.ledger.secrets[value]
	s.mu.Unlock()
	switch {
	case t == nil:
		c.entry.Reason = "unknown token"
	case t.ClientID != client.ID:
		return refuse(http.StatusBadRequest, "invalid_grant", "the token belongs to another client").answer()
	default:
		s.Revoke(value)
	}
	return answer{status: http.StatusOK, header: http.Header{}}
}
