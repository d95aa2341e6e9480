package oauth

import (
	"encoding/json"
	"testing"
)

// TestStringMemberDecodesAsEncodingJSON compares stringMember with encoding/json.
func TestStringMemberDecodesAsEncodingJSON(t *testing.T) {
	values := []string{
		`""`, `"token"`, `"a b~"`, `"a\\b"`, `"a\"b"`, `"\u0061"`, `"\\"`, `"é"`, "\"\xff\"", "\"a\xed\xa0\x80\"", `"\ud800"`,
		`null`, `1`, `true`, `["a"]`, `{"a":"b"}`,
	}
	for _, value := range values {
		members := map[string]json.RawMessage{"m": json.RawMessage(value)}
		var want *string
		wantOK := json.Unmarshal([]byte(value), &want) == nil && want != nil
		got, ok := stringMember(members, "m")
		if ok != wantOK || ok && got != *want {
			t.Errorf("%s: got %q, %v; want the string of encoding/json, %v", value, got, ok, wantOK)
		}
	}
	if got, ok := stringMember(nil, "m"); got != "" || ok {
		t.Errorf("missing member: got %q, %v; want none", got, ok)
	}
}
