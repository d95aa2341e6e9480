package redis

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// FuzzDecodeItem: what the database holds is an item as it was written, or none.
func FuzzDecodeItem(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(make([]byte, itemHeaderSize-1))
	f.Add([]byte(encodeItem(session.Item{Version: 7, Expires: time.UnixMilli(1e12), Value: []byte("value")})))
	f.Add(bytes.Repeat([]byte{0xff}, 40))
	f.Fuzz(func(t *testing.T, b []byte) {
		item, err := decodeItem(b)
		if (err == nil) != (len(b) >= itemHeaderSize) {
			t.Fatalf("decoding %d bytes: %v", len(b), err)
		}
		if err == nil && encodeItem(item) != string(b) {
			t.Errorf("%x decodes to %+v, which encodes to something else", b, item)
		}
	})
}

// FuzzDecodeLease: each lease has one spelling.
func FuzzDecodeLease(f *testing.F) {
	f.Add(encodeLease(session.Lease{Holder: session.Holder{1}, Beat: 7}))
	f.Add(strings.Repeat("\xff", leaseSize))
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		if lease, err := decodeLease(s); err == nil && encodeLease(lease) != s {
			t.Errorf("%x is taken for %+v", s, lease)
		}
	})
}

// FuzzURL: a URL is understood or refused, and the refusal does not repeat it.
func FuzzURL(f *testing.F) {
	for _, u := range []string{
		"redis://127.0.0.1", "redis://user:CANARYpass@host:1/2", "rediss://[::1]:6379", "unix:///run/redis.sock?db=3", "valkeys://a,b", "redis://host:CANARY/", "redis://u:CANARY%zz@h",
		"redis://host/CANARY", "redis://host?password=CANARY", "unix://CANARY@x/run?db=-1", "http://CANARY", "CANARY", "redis://\x00CANARY@h", "redis://:CANARY#x@h",
	} {
		f.Add(u)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		if _, err := parseURLs([]string{raw}); err != nil && strings.Contains(raw, "CANARY") && strings.Contains(err.Error(), "CANARY") {
			t.Errorf("%q: error %q", raw, err)
		}
	})
}

// FuzzScriptAnswer: whatever a server answers in place of our script's result,
// it is a result or an error.
func FuzzScriptAnswer(f *testing.F) {
	lease := session.Lease{Holder: session.Holder{9}, Beat: 3}
	for _, a := range []string{
		":1\r\n", "*1\r\n:0\r\n", "*1\r\n:1\r\n", "*2\r\n:3\r\n" + bulk(encodeLease(lease)), "*2\r\n:2\r\n" + bulk(encodeLease(lease)), "*2\r\n:3\r\n" + bulk("short"), "*2\r\n+x\r\n_\r\n",
		"_\r\n", "-ERR MALFORMED item\r\n", "-READONLY x\r\n", "*2\r\n:9\r\n:9\r\n", "*2\r\n" + bulk("3") + "*0\r\n", "%1\r\n+a\r\n+b\r\n", "#t\r\n", ",1.5\r\n", "*2\r\n" + bulk("\x00note") + bulk(""),
	} {
		f.Add([]byte(a))
	}
	server := &parrot{}
	s := &Store{keys: newKeyspace("p")}
	var err error
	s.client, err = rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{"127.0.0.1:1"}, DialCtxFn: server.dial, ForceSingleClient: true, DisableRetry: true, DisableCache: true,
		PipelineMultiplex: -1, ClientSetInfo: rueidis.DisableClientSetInfo,
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(s.client.Close)
	f.Fuzz(func(t *testing.T, reply []byte) {
		if !oneValue(reply) {
			return // the client's own parser is not ours to test
		}
		server.say(reply)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		res := acquireScript.run(ctx, s.plain, []string{"p:{i}", "p:{i}:lease"}, encodeVersion(1), "", "")
		got, err := readLease(res)
		if err == nil || errors.Is(err, session.ErrLeased) {
			if !bytes.Contains(reply, []byte(encodeLease(got))) {
				t.Errorf("%q is read as %+v, %v", reply, got, err)
			}
		}
		get := s.client.B().Get().Key("p:{i}").Build()
		if item, err := readItem(s.client.Do(ctx, get), time.Now()); err == nil && !bytes.Contains(reply, item.Value) {
			t.Errorf("%q is read as %+v", reply, item)
		}
		_ = passing(explain(errors.New(string(reply))))
	})
}
