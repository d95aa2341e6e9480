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

// FuzzDecodeItem: a decoded item encodes to the same bytes.
func FuzzDecodeItem(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(make([]byte, itemHeaderSize-1))
	f.Add([]byte(encodeItem(session.Item{Version: 7, Expires: time.UnixMilli(1e12), Value: []byte("value")})))
	f.Add(bytes.Repeat([]byte{0xff}, 40))
	f.Fuzz(func(t *testing.T, b []byte) {
		item, err := decodeItem(b)
		if (err == nil) != (len(b) >= itemHeaderSize) {
			t.Fatalf("decoding %d bytes: got error %v, want one for less than %d bytes only", len(b), err, itemHeaderSize)
		}
		if err == nil && encodeItem(item) != string(b) {
			t.Errorf("%x decodes to %+v, which encodes to %x", b, item, encodeItem(item))
		}
	})
}

// FuzzDecodeLease: each lease has exactly one encoding.
func FuzzDecodeLease(f *testing.F) {
	f.Add(encodeLease(session.Lease{Holder: session.Holder{1}, Beat: 7}))
	f.Add(strings.Repeat("\xff", leaseSize))
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		if lease, err := decodeLease(s); err == nil && encodeLease(lease) != s {
			t.Errorf("%x decodes to %+v, which encodes to %x", s, lease, encodeLease(lease))
		}
	})
}

// FuzzURL: the error for a malformed URL does not quote it.
func FuzzURL(f *testing.F) {
	for _, u := range []string{
		"redis://127.0.0.1", "redis://user:CANARYpass@host:1/2", "rediss://[::1]:6379", "unix:///run/redis.sock?db=3", "valkeys://a,b", "redis://host:CANARY/", "redis://u:CANARY%zz@h",
		"redis://host/CANARY", "redis://host?password=CANARY", "unix://CANARY@x/run?db=-1", "http://CANARY", "CANARY", "redis://\x00CANARY@h", "redis://:CANARY#x@h",
	} {
		f.Add(u)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		if _, err := parseURLs([]string{raw}); err != nil && strings.Contains(raw, "CANARY") && strings.Contains(err.Error(), "CANARY") {
			t.Errorf("%q: got error %q, want one without a part of the URL", raw, err)
		}
	})
}

// FuzzScriptAnswer: any reply of a server decodes to the result of a script or to an
// error, and to no value that is not in the reply.
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
			return // the parser of the client is not under test
		}
		server.setReply(reply)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		res := acquireScript.run(ctx, s.plain, []string{"p:{i}", "p:{i}:lease"}, encodeVersion(1), "", "")
		got, err := readLease(res)
		if err == nil || errors.Is(err, session.ErrLeased) {
			if !bytes.Contains(reply, []byte(encodeLease(got))) {
				t.Errorf("%q decodes to %+v, %v, want a lease of the reply", reply, got, err)
			}
		}
		get := s.client.B().Get().Key("p:{i}").Build()
		if item, err := readItem(s.client.Do(ctx, get), time.Now()); err == nil && !bytes.Contains(reply, item.Value) {
			t.Errorf("%q decodes to %+v, want an item of the reply", reply, item)
		}
		_ = isTransient(explain(errors.New(string(reply))))
	})
}
