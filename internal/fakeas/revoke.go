package fakeas

import (
	"net/http"
)

// revoke serves token revocation (RFC 7009). It answers 200 for an unknown token
// and refuses a token of another client.
func (s *Server) revoke(c *call) answer {
	c.form = c.r.PostForm
	if refused := checkTokenRequest(c); refused != nil {
		return refused.answer()
	}
	client, refused := s.authenticate(c)
	if refused != nil {
		return refused.answer()
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
