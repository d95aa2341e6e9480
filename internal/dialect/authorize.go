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

// authorize logs the user in without asking. A request that breaks the rules
// is answered on the spot, whatever it is, so that the test sees it.
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
		for _, what := range wrong {
			s.violate("authorize: " + what)
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
