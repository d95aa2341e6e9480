package dialect

import (
	"crypto/rand"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// login is one approved authorization request.
type login struct {
	query   url.Values
	at      time.Time
	expires time.Time // of the code
	spent   bool
}

func (l *login) hasScope(scope string) bool {
	for _, one := range strings.Fields(l.query.Get("scope")) {
		if one == scope {
			return true
		}
	}
	return false
}

// authorize serves the authorization endpoint. It logs the user in without a
// form. A request that breaks the rules gets an error page, never a redirect,
// so that the test notices it.
func (s *Server) authorize(w http.ResponseWriter, r *http.Request) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	p := s.rules.authorize.with(map[string]string{
		"response_type": "code", "client_id": s.rules.clientID, "redirect_uri": s.rules.redirectURI, "state": "",
	})
	p.optional = append([]string{"code_challenge", "code_challenge_method"}, p.optional...)
	wrong := p.check(q)
	if r.Method != http.MethodGet {
		wrong = append(wrong, "method "+r.Method)
	}
	if err != nil {
		wrong = append(wrong, "unreadable query")
	}
	if q.Has("code_challenge") && q.Get("code_challenge_method") != "S256" {
		wrong = append(wrong, "code_challenge_method is not S256")
	}
	if len(wrong) > 0 {
		for _, violation := range wrong {
			s.recordViolation("authorize: " + violation)
		}
		http.Error(w, "invalid_request: "+strings.Join(wrong, ", "), http.StatusBadRequest)
		return
	}
	code := rand.Text()
	s.mu.Lock()
	s.codes[code] = &login{query: q, at: time.Now(), expires: time.Now().Add(time.Minute)}
	s.mu.Unlock()
	back := url.Values{"code": {code}, "state": {q.Get("state")}}
	separator := "?"
	if strings.Contains(s.rules.redirectURI, "?") {
		separator = "&"
	}
	w.Header().Set("Location", s.rules.redirectURI+separator+back.Encode())
	w.WriteHeader(http.StatusFound)
}
