package fakeas

import (
	"encoding/json"
	"html"
	"net/http"
	"net/url"
	"strings"
)

// answer is the response of an endpoint before it is sent. A fault can spoil it
// after the endpoint has done its work.
type answer struct {
	status int
	header http.Header
	body   []byte
	// code is the OAuth error code. reason is its exact cause, for the log.
	code, reason string
	// delivery is the fault that sends the body, nil to send it at once.
	delivery *Fault
}

func newAnswer(status int, contentType, body string) answer {
	return answer{status: status, header: http.Header{"Content-Type": {contentType}}, body: []byte(body)}
}

func page(status int, text string) answer {
	return newAnswer(status, "text/html; charset=utf-8", "<!doctype html><title>fakeas</title><p>"+html.EscapeString(text)+"\n")
}

func jsonAnswer(status int, v any) answer {
	body, err := json.Marshal(v)
	if err != nil {
		return page(http.StatusInternalServerError, "cannot encode the answer: "+err.Error())
	}
	a := newAnswer(status, "application/json", string(body))
	a.header.Set("Cache-Control", "no-store")
	return a
}

// asForm converts an answer with a JSON object to one with a form.
func (a answer) asForm() answer {
	var members map[string]any
	if json.Unmarshal(a.body, &members) != nil {
		return a
	}
	form := url.Values{}
	for name, value := range members {
		form.Set(name, text(value))
	}
	a.body = []byte(form.Encode())
	a.header.Set("Content-Type", "application/x-www-form-urlencoded")
	return a
}

func redirect(to string) answer {
	a := newAnswer(http.StatusFound, "text/html; charset=utf-8", "")
	a.header.Set("Location", to)
	return a
}

// emptyBody in place of an error code gives an answer without a body.
const emptyBody = "-"

// refusal is an OAuth error answer (RFC 6749, section 5.2).
type refusal struct {
	status       int
	code, reason string
}

func refuse(status int, code, reason string) *refusal {
	return &refusal{status: status, code: code, reason: reason}
}

func (r *refusal) answer() answer {
	a := jsonAnswer(r.status, map[string]string{"error": r.code, "error_description": r.reason})
	if r.code == emptyBody {
		a = answer{status: r.status, header: http.Header{}}
	}
	if r.status == http.StatusUnauthorized {
		a.header.Set("WWW-Authenticate", `Basic realm="fakeas"`)
	}
	a.code, a.reason = r.code, r.reason
	return a
}

// addQuery adds parameters to a URL with or without a query.
func addQuery(uri string, v url.Values) string {
	if len(v) == 0 {
		return uri
	}
	if strings.Contains(uri, "?") {
		return uri + "&" + v.Encode()
	}
	return uri + "?" + v.Encode()
}
