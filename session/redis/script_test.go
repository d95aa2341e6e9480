package redis

import (
	"crypto/sha1"
	"encoding/hex"
	"testing"
)

func TestScriptHashesMatchTheScripts(t *testing.T) {
	for name, s := range map[string]script{
		"create": createScript, "replace": replaceScript, "deleteAt": deleteAtScript, "acquire": acquireScript,
		"beat": beatScript, "release": releaseScript, "announce": announceScript,
		"index": indexScript,
	} {
		sum := sha1.Sum([]byte(s.lua))
		if want := hex.EncodeToString(sum[:]); s.sha != want {
			t.Errorf("hash of script %s: got %q, want %q", name, s.sha, want)
		}
	}
}
