package oauth

import (
	"encoding/json"
	"testing"
)

// TestStringMember compares with what encoding/json makes of the same value.
func TestStringMember(t *testing.T) {
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
			t.Errorf("%s is read as %q, %v", value, got, ok)
		}
	}
	if got, ok := stringMember(nil, "m"); got != "" || ok {
		t.Errorf("what is not there is read as %q, %v", got, ok)
	}
}
