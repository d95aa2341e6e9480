package caddymodule

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestOptionLines(t *testing.T) {
	text := `{
	oauth_session {
		issuer https://login.example.com
	}
}
a.example.com {
	oauth_session /private/* {
		client_id a
		cookie {
			name x
		}
		scope openid
	}
	respond client_id
}
b.example.com {
	oauth_session
	reverse_proxy issuer {
		scope no
	}
}
`
	want := map[string][]int{"": {2, 7, 16 + 1}, "issuer": {3}, "client_id": {8}, "cookie": {9}, "scope": {12}}
	if diff := cmp.Diff(want, optionLines("Caddyfile", []byte(text))); diff != "" {
		t.Error(diff)
	}
	if got := optionLines("Caddyfile", []byte(`a "unclosed`)); len(got) > 0 {
		t.Errorf("got %v from a file that is no Caddyfile", got)
	}
}
