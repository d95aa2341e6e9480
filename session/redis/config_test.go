package redis

import (
	"crypto/tls"
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestURLs(t *testing.T) {
	for _, c := range []struct {
		urls []string
		want string // addresses, or empty for an error
	}{
		{[]string{"redis://a"}, "a:6379"},
		{[]string{"redis://a:7000/3"}, "a:7000"},
		{[]string{"rediss://[::1]:7000"}, "[::1]:7000"},
		{[]string{"valkey://a"}, "a:6379"},
		{[]string{"redis://u:p@a:1", "redis://u:p@b:2"}, "a:1 b:2"},
		{[]string{"unix:///run/redis.sock"}, "/run/redis.sock"},
		{[]string{"unix:///run/redis.sock?db=2"}, "/run/redis.sock"},
		{nil, ""},
		{[]string{""}, ""},
		{[]string{"a:6379"}, ""},
		{[]string{"http://a"}, ""},
		{[]string{"redis://a/x"}, ""},
		{[]string{"redis://a/-1"}, ""},
		{[]string{"redis://a/0/1"}, ""},
		{[]string{"redis://a#b"}, ""},
		{[]string{"redis://a?client_cache=0"}, ""},
		{[]string{"redis://a?protocol=2"}, ""},
		{[]string{"rediss://a?skip_verify=1"}, ""},
		{[]string{"redis://a?db=1&addr=b:1"}, ""},
		{[]string{"unix://"}, ""},
		{[]string{"unix://run/redis.sock?db=x"}, ""},
		{[]string{"redis://a", "rediss://b"}, ""},
		{[]string{"redis://a/1", "redis://b/2"}, ""},
		{[]string{"redis://u:p@a", "redis://u:q@b"}, ""},
		{[]string{"unix:///a", "unix:///b"}, ""},
		{[]string{"redis://a", "unix:///b"}, ""},
	} {
		opt, err := Config{URLs: c.urls}.options()
		if got := strings.Join(opt.InitAddress, " "); (err == nil) != (c.want != "") || err == nil && got != c.want {
			t.Errorf("%q: got %q, error %v, want %q", c.urls, got, err, c.want)
		}
	}
}

func TestInvalidConfigIsRefused(t *testing.T) {
	url := []string{"redis://127.0.0.1:1"}
	for name, c := range map[string]Config{
		"TLS without rediss":       {URLs: url, TLS: &tls.Config{}},
		"user twice":               {URLs: []string{"redis://u:p@127.0.0.1:1"}, Username: "u"},
		"password twice":           {URLs: []string{"redis://:p@127.0.0.1:1"}, Password: fixed("p")},
		"prefix with a brace":      {URLs: url, Prefix: "a{b"},
		"prefix with a star":       {URLs: url, Prefix: "a*"},
		"prefix with a space":      {URLs: url, Prefix: "a b"},
		"prefix that is long":      {URLs: url, Prefix: strings.Repeat("a", 65)},
		"prefix that is not ASCII": {URLs: url, Prefix: "ä"},
		"replicas below zero":      {URLs: url, Replicas: -1},
	} {
		if _, err := Open(c); err == nil || strings.Contains(err.Error(), "refused") {
			t.Errorf("%s: got error %v, want one before connecting", name, err)
		}
	}
}

func fixed(password string) func() (string, error) {
	return func() (string, error) { return password, nil }
}

// TestNoPasswordInErrors covers URLs that are malformed because the password has
// unescaped characters.
func TestNoPasswordInErrors(t *testing.T) {
	secrets := []string{"s3cr3t", "hunter2"}
	failing := func() (string, error) { return "s3cr3t", errors.New("no such file") }
	for _, c := range []Config{
		{URLs: []string{"redis://u:s3cr3t@127.0.0.1:1"}},
		{URLs: []string{"redis://u:s3cr3t/hunter2@127.0.0.1:1"}},
		{URLs: []string{"redis://u:12/hunter2@127.0.0.1:1"}},
		{URLs: []string{"redis://u:s3cr3t?hunter2@127.0.0.1:1"}},
		{URLs: []string{"redis://u:s3cr3t#hunter2@127.0.0.1:1"}},
		{URLs: []string{"redis://u:s3cr3t%zzhunter2@127.0.0.1:1"}},
		{URLs: []string{"redis://u:s3cr3t hunter2@127.0.0.1:1"}},
		{URLs: []string{"hunter2://u:s3cr3t@127.0.0.1:1"}},
		{URLs: []string{"redis://127.0.0.1:1"}, Username: "u", Password: fixed("s3cr3t")},
		{URLs: []string{"redis://127.0.0.1:1"}, Password: failing},
		{URLs: []string{"redis://127.0.0.1:1"}, SentinelMaster: "m", Password: fixed("s3cr3t"), SentinelPassword: fixed("hunter2")},
	} {
		_, err := Open(c)
		if err == nil {
			t.Fatalf("%q: got nil, want an error", c.URLs)
		}
		if slices.ContainsFunc(secrets, func(s string) bool { return strings.Contains(err.Error(), s) }) {
			t.Errorf("%q: got error %v, want one without a password", c.URLs, err)
		}
	}
}
