package fakeas

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"time"
)

// controlHandler serves the control interface below /ctl/, which ServeHTTP
// documents.
func (s *Server) controlHandler() http.Handler {
	mux := http.NewServeMux()
	get := func(path string, f func(r *http.Request) any) {
		mux.HandleFunc("GET /ctl/"+path, func(w http.ResponseWriter, r *http.Request) { reply(w, f(r), nil) })
	}
	post := func(path string, f func(body []byte) (any, error)) {
		mux.HandleFunc("POST /ctl/"+path, func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
			var result any
			if err == nil {
				result, err = f(body)
			}
			reply(w, result, err)
		})
	}
	remove := func(path string, f func()) {
		mux.HandleFunc("DELETE /ctl/"+path, func(w http.ResponseWriter, _ *http.Request) { f(); reply(w, true, nil) })
	}
	get("knobs", func(*http.Request) any { return s.Knobs() })
	get("stats", func(*http.Request) any { return s.Stats() })
	get("tokens", func(*http.Request) any { return s.Tokens() })
	get("secrets", func(*http.Request) any { return s.Secrets() })
	get("log", func(*http.Request) any { return s.Log() })
	get("valid", func(r *http.Request) any {
		user, ok := s.ValidAccessToken(r.FormValue("token"))
		return map[string]any{"valid": ok, "user": user}
	})
	remove("faults", s.ClearFaults)
	remove("log", s.ClearLog)
	post("knobs", s.postKnobs)
	post("faults", s.postFaults)
	post("keys", s.postKeys)
	post("logout", s.postLogout)
	post("clients", func(body []byte) (any, error) {
		var c Client
		err := decode(body, &c)
		if err == nil {
			s.AddClient(c)
		}
		return err == nil, err
	})
	post("users", func(body []byte) (any, error) {
		var u User
		err := decode(body, &u)
		if err == nil {
			s.SetUser(u)
		}
		return err == nil, err
	})
	post("revoke", func(body []byte) (any, error) {
		var in struct {
			Token string `json:"token"`
		}
		err := decode(body, &in)
		return s.Revoke(in.Token), err
	})
	return mux
}

func reply(w http.ResponseWriter, v any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		v = map[string]string{"error": err.Error()}
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(v) // fails only if the client has disconnected
}

func (s *Server) postKnobs(body []byte) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.knobs.clone()
	if err := decode(body, &k); err != nil {
		return nil, err
	}
	s.knobs = k
	return k.clone(), nil
}

func (s *Server) postFaults(body []byte) (any, error) {
	if !bytes.HasPrefix(bytes.TrimSpace(body), []byte("[")) {
		body = append(append([]byte("["), body...), ']')
	}
	var each []json.RawMessage
	if err := json.Unmarshal(body, &each); err != nil {
		return nil, fmt.Errorf("reading faults: %w", err)
	}
	faults := make([]Fault, len(each))
	for i := range each {
		if err := decode(each[i], &faults[i]); err != nil {
			return nil, err
		}
	}
	s.Fail(faults...)
	return len(faults), nil
}

func (s *Server) postKeys(body []byte) (any, error) {
	var in struct {
		Action string `json:"action"`
	}
	if err := decode(body, &in); err != nil {
		return nil, err
	}
	switch in.Action {
	case "rotate":
		s.RotateKey()
	case "replace":
		return true, s.ReplaceKey()
	case "retire":
		s.RetireKeys()
	default:
		return nil, fmt.Errorf("unknown action %q", in.Action)
	}
	return true, nil
}

func (s *Server) postLogout(body []byte) (any, error) {
	var l Logout
	if err := decode(body, &l); err != nil {
		return nil, err
	}
	token, err := s.LogoutToken(l)
	if err != nil {
		return nil, err
	}
	httpClient := &http.Client{Timeout: 10 * time.Second}
	status, err := s.SendLogout(context.Background(), httpClient, l.ClientID, token)
	return map[string]any{"status": status, "logout_token": token}, err
}

// decode reads a JSON object into the struct *v. It refuses unknown members and
// accepts durations such as "1.5s". A member of the object replaces the field;
// maps and structs are not merged.
func decode(body []byte, v any) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(body, &members); err != nil {
		return fmt.Errorf("reading a JSON object: %w", err)
	}
	t := reflect.TypeOf(v).Elem()
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if _, posted := members[name]; posted {
			reflect.ValueOf(v).Elem().Field(i).SetZero()
		}
		var duration string
		if t.Field(i).Type != reflect.TypeFor[time.Duration]() || json.Unmarshal(members[name], &duration) != nil {
			continue
		}
		d, err := time.ParseDuration(duration)
		if err != nil {
			return fmt.Errorf("reading %s: %w", name, err)
		}
		members[name] = json.RawMessage(fmt.Sprint(int64(d)))
	}
	body, err := json.Marshal(members)
	if err != nil {
		return fmt.Errorf("reading a JSON object: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("reading a JSON object: %w", err)
	}
	return nil
}
