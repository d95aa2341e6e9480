package oauth

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"time"
	"unicode/utf8"
)

var (
	errNotObject = errors.New("the response is not a JSON object")
	errTrailing  = errors.New("bytes follow the JSON object of the response")
)

// maxTime is the last second of the year 9999. Larger NumericDates are mistakes,
// and overflow on conversion.
const maxTime = 253402300799

// parseObject reads a JSON object, with or without a byte order mark. The last of
// members with the same name counts, as in encoding/json. If bytes follow the
// object, it returns the members together with errTrailing.
func parseObject(body []byte) (map[string]json.RawMessage, error) {
	body = bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))
	var members map[string]json.RawMessage
	if json.Unmarshal(body, &members) == nil && members != nil {
		return members, nil
	}
	members = nil
	dec := json.NewDecoder(bytes.NewReader(body))
	if err := dec.Decode(&members); err != nil || members == nil {
		return nil, errNotObject // the decoder's errors quote the body
	}
	if _, err := dec.Token(); err != io.EOF {
		return members, errTrailing
	}
	return members, nil
}

// The functions below read the members of a JSON object one by one. With a struct,
// encoding/json would ignore the case of names, and stop at the first member of a
// wrong type.

func stringMember(members map[string]json.RawMessage, name string) (string, bool) {
	if s, ok := plainString(members[name]); ok {
		return s, true
	}
	var s *string
	if json.Unmarshal(members[name], &s) != nil || s == nil {
		return "", false
	}
	return *s, true
}

// plainString reads a JSON string of ASCII without escapes, as tokens are. It
// avoids the cost of the decoder.
func plainString(raw json.RawMessage) (string, bool) {
	if len(raw) < 2 || raw[0] != '"' {
		return "", false
	}
	text := raw[1 : len(raw)-1]
	for _, c := range text {
		if c == '\\' || c >= utf8.RuneSelf {
			return "", false
		}
	}
	return string(text), true
}

func stringsMember(members map[string]json.RawMessage, name string) []string {
	var list []string
	if json.Unmarshal(members[name], &list) != nil {
		return nil
	}
	return list
}

func boolMember(members map[string]json.RawMessage, name string) bool {
	var b bool
	return json.Unmarshal(members[name], &b) == nil && b
}

// parseNumericDate reads a NumericDate of RFC 7519 section 2, in whole seconds.
func parseNumericDate(raw json.RawMessage) (time.Time, error) {
	var seconds *float64
	if json.Unmarshal(raw, &seconds) != nil || seconds == nil || *seconds < 0 || *seconds > maxTime {
		return time.Time{}, errors.New("is not a number of seconds")
	}
	return time.Unix(int64(*seconds), 0), nil
}
