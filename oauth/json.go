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
	errNotObject = errors.New("the answer is not a JSON object")
	errTrailing  = errors.New("something follows the JSON object of the answer")
)

// maxTime is the last second that fits into four digits of a year; larger
// NumericDates are mistakes and overflow on conversion.
const maxTime = 253402300799

// parseObject reads a JSON object, whatever its media type and with or without
// a byte order mark. Of members with the same name the last one counts, as in
// encoding/json. If bytes follow the object, it returns errTrailing together
// with the members.
func parseObject(body []byte) (map[string]json.RawMessage, error) {
	body = bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))
	var members map[string]json.RawMessage
	if json.Unmarshal(body, &members) == nil && members != nil {
		return members, nil
	}
	members = nil
	dec := json.NewDecoder(bytes.NewReader(body))
	if err := dec.Decode(&members); err != nil || members == nil {
		return nil, errNotObject // the decoder's own errors quote the body
	}
	if _, err := dec.Token(); err != io.EOF {
		return members, errTrailing
	}
	return members, nil
}

// Members of a JSON object are read one by one into their type: encoding/json
// would match struct fields in any case, and give up at the first odd member.

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

// plainString reads a JSON value that is a string of nothing but ASCII without an
// escape, as tokens are: that is the string.
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

// numericDate reads a NumericDate of RFC 7519 section 2, in whole seconds.
func numericDate(raw json.RawMessage) (time.Time, error) {
	var seconds *float64
	if json.Unmarshal(raw, &seconds) != nil || seconds == nil || *seconds < 0 || *seconds > maxTime {
		return time.Time{}, errors.New("is not a number of seconds")
	}
	return time.Unix(int64(*seconds), 0), nil
}
