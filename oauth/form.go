package oauth

import (
	"encoding/json"
	"errors"
	"mime"
	"net/url"
	"strings"
)

// maxFormMembers limits the members of a form. Token responses have about ten.
const maxFormMembers = 100

var (
	errNotForm   = errors.New("the response is not a form")
	errNotUnique = errors.New("a name occurs twice in the form of the response")
)

// members reads a response that is a JSON object, whatever its media type. A
// response with the media type of forms may also be a form, which servers send that
// are older than RFC 6749. The values of a form are strings.
func (r response) members() (map[string]json.RawMessage, error) {
	members, err := parseObject(r.body)
	if members != nil {
		return members, err
	}
	mediaType, _, _ := mime.ParseMediaType(r.header.Get("Content-Type"))
	if mediaType != "application/x-www-form-urlencoded" {
		return nil, err
	}
	return parseForm(r.body)
}

// parseForm reads a form. If names occur more than once, it returns the other
// members together with errNotUnique: two readers could take different values.
func parseForm(body []byte) (map[string]json.RawMessage, error) {
	text := strings.TrimSpace(string(body))
	if !strings.Contains(text, "=") || strings.Count(text, "&") >= maxFormMembers {
		return nil, errNotForm
	}
	form, err := url.ParseQuery(text)
	if err != nil {
		return nil, errNotForm // the parser's errors quote the body
	}
	members := make(map[string]json.RawMessage)
	err = nil
	for name, values := range form {
		if len(values) > 1 {
			err = errNotUnique
			continue
		}
		members[name], _ = json.Marshal(values[0]) // marshalling a string cannot fail
	}
	return members, err
}
