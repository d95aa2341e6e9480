package redis

import (
	"crypto/sha1"
	"encoding/hex"
	"testing"
)

func TestScriptHashes(t *testing.T) {
	for name, s := range map[string]script{
		"replace": replaceScript, "deleteAt": deleteAtScript, "acquire": acquireScript,
		"beat": beatScript, "release": releaseScript, "announce": announceScript,
		"index": indexScript,
	} {
		sum := sha1.Sum([]byte(s.lua))
		if want := hex.EncodeToString(sum[:]); s.sha != want {
			t.Errorf("%s: the script's hash is written as %q, want %q", name, s.sha, want)
		}
	}
}
