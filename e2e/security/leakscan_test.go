package security

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/internal/echo"
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// A secret is a value that must not appear outside its place.
type secret struct {
	kind string // a fakeas.Kind or a constant below
	// part is the piece that the scan searches for: long enough to be unique, short enough
	// to find a truncated secret.
	part string
}

const (
	kindVerifier = "PKCE verifier"
	kindCookie   = "cookie"
	kindKey      = "server key"
	kindClient   = "client secret"
	kindAdded    = "secret of a test"
)

// partSize is the length of a part in bytes. A shorter secret is its own part.
const partSize = 24

func head(s string) string { return s[:min(len(s), partSize)] }
func tail(s string) string { return s[max(0, len(s)-partSize):] }

// secrets returns all secrets that exist so far.
func (w *world) secrets() []secret {
	var all []secret
	for _, as := range []*fakeas.Server{w.idp, w.other} {
		known := map[string]bool{}
		for _, issued := range as.Tokens() {
			known[issued.Value] = true
			all = append(all, tokenParts(string(issued.Kind), issued.Value)...)
		}
		for _, value := range as.Secrets() {
			if !known[value] {
				all = append(all, secret{kindVerifier, head(value)})
			}
		}
	}
	for _, key := range w.allKeys {
		all = append(all, secret{kindKey, head(key)})
		if raw, err := base64.RawURLEncoding.DecodeString(key); err == nil {
			all = append(all, secret{kindKey, head(string(raw))}, secret{kindKey, head(hex.EncodeToString(raw))})
		}
	}
	basic := base64.StdEncoding.EncodeToString([]byte(clientID + ":" + url.QueryEscape(w.clientSecret)))
	all = append(all, secret{kindClient, head(w.clientSecret)}, secret{kindClient, basic[8 : 8+partSize]})
	w.mu.Lock()
	defer w.mu.Unlock()
	for value := range w.cookieValues {
		// Sealed cookies all begin with the same bytes.
		all = append(all, secret{kindCookie, tail(value)})
		if raw, err := base64.RawURLEncoding.DecodeString(value); err == nil {
			all = append(all, secret{kindCookie, tail(string(raw))}, secret{kindCookie, tail(hex.EncodeToString(raw))})
		}
	}
	for _, value := range w.addedSecrets {
		all = append(all, secret{kindAdded, head(value)})
	}
	return all
}

// tokenParts returns the parts of a token. All JWTs begin and end alike; the middle and
// the signature are unique.
func tokenParts(kind, value string) []secret {
	jwt := strings.Split(value, ".")
	if len(jwt) != 3 {
		return []secret{{kind, head(value)}}
	}
	parts := []secret{{kind, head(jwt[2])}}
	if len(jwt[1]) > 2*partSize {
		parts = append(parts, secret{kind, jwt[1][partSize : 2*partSize]})
	}
	return parts
}

// addSecret adds a value that a test made to the secrets.
func (w *world) addSecret(value string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.addedSecrets = append(w.addedSecrets, value)
}

// A leak is a secret outside its place.
type leak struct {
	place, kind, context string
}

func (l leak) String() string {
	return fmt.Sprintf("%s holds a %s: …%s", l.place, l.kind, l.context)
}

// A secretFinder searches for many secrets in one pass. A Bloom filter over eight-byte
// windows excludes most positions.
type secretFinder struct {
	bloom  []uint64
	starts map[uint64][]secret
}

const (
	windowSize = 8
	bloomBits  = 20
)

func bloomIndex(window uint64) uint64 { return window * 0x9e3779b97f4a7c15 >> (64 - bloomBits) }

func newSecretFinder(all []secret, except ...string) *secretFinder {
	f := &secretFinder{bloom: make([]uint64, 1<<bloomBits/64), starts: map[uint64][]secret{}}
next:
	for _, s := range all {
		for _, kind := range except {
			if s.kind == kind {
				continue next
			}
		}
		if len(s.part) < windowSize {
			continue // too short to be unique
		}
		window := binary.LittleEndian.Uint64([]byte(s.part))
		i := bloomIndex(window)
		f.bloom[i/64] |= 1 << (i % 64)
		f.starts[window] = append(f.starts[window], s)
	}
	return f
}

// maxLeaks bounds the reported leaks of one place.
const maxLeaks = 5

func (f *secretFinder) find(place string, text []byte) []leak {
	var found []leak
	for at := 0; at+windowSize <= len(text) && len(found) < maxLeaks; at++ {
		window := binary.LittleEndian.Uint64(text[at:])
		if i := bloomIndex(window); f.bloom[i/64]&(1<<(i%64)) == 0 {
			continue
		}
		for _, s := range f.starts[window] {
			if bytes.HasPrefix(text[at:], []byte(s.part)) {
				before := text[max(0, at-200):at]
				found = append(found, leak{place, s.kind, fmt.Sprintf("%q", append(bytes.Clone(before), text[at:at+4]...))})
				break
			}
		}
	}
	return found
}

// findLeaks scans every place where no secret belongs. The app may receive access tokens
// and no other secret.
func (w *world) findLeaks(t testing.TB) []leak {
	t.Helper()
	all := w.secrets()
	n := newSecretFinder(all)
	w.mu.Lock()
	found := append(w.pendingLeaks, n.find("an answer to a browser", w.sentToBrowsers)...)
	w.pendingLeaks, w.sentToBrowsers = nil, nil
	w.mu.Unlock()
	for i, in := range w.instances {
		name := fmt.Sprintf("instance %d: ", i+1)
		found = append(found, w.findLeaksOnDisk(t, n, name, in.dir())...)
		if in.Process != nil {
			found = append(found, n.find(name+"the output", []byte(in.Process.Log(t)))...)
			_, metrics := in.Admin(t, http.MethodGet, "/metrics", "")
			found = append(found, n.find(name+"/metrics", []byte(metrics))...)
		}
	}
	if w.redis != nil && w.redis.Process != nil {
		found = append(found, n.find("Redis", w.redisBytes(t))...)
	}
	_, got := w.attacker.received()
	found = append(found, n.find("the attacker's server", got)...)
	found = append(found, n.find("the error app", requestBytes(w.errorApp))...)
	toApp := newSecretFinder(all, string(fakeas.KindAccess))
	return append(found, toApp.find("the app", requestBytes(w.app))...)
}

// panicReport matches the log of net/http and the output of a crash. Random base64 may contain "panic", and no space or
// colon behind it.
var panicReport = regexp.MustCompile(`panic(:| serving)`)

// findLeaksOnDisk scans all files below a directory: configuration, logs, sessions. Of a
// log it scans the part that is new since the last scan.
func (w *world) findLeaksOnDisk(t testing.TB, n *secretFinder, name, dir string) []leak {
	t.Helper()
	var found []leak
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return ignoreGone(err)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return ignoreGone(err)
		}
		if filepath.Ext(path) == ".log" {
			from := max(0, w.logOffsets[path]-4*partSize)
			w.logOffsets[path] = int64(len(text))
			text = text[min(from, int64(len(text))):]
			if at := panicReport.FindIndex(text); at != nil {
				t.Errorf("%s reports a panic: %q", name+filepath.Base(path), text[max(0, at[0]-100):min(len(text), at[0]+2000)])
			}
		}
		found = append(found, n.find(name+filepath.Base(path), text)...)
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return found
}

// ignoreGone ignores a missing file: Caddy removes files while it runs.
func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// redisBytes returns every key and value in Redis. DUMP would compress the values.
func (w *world) redisBytes(t testing.TB) []byte {
	t.Helper()
	var all bytes.Buffer
	for _, key := range w.redis.Keys(t, "*") {
		fmt.Fprintln(&all, key)
		switch w.redis.Do(t, "TYPE", key) {
		case "string":
			fmt.Fprintln(&all, w.redis.Do(t, "GET", key))
		case "hash":
			fmt.Fprintln(&all, w.redis.Do(t, "HGETALL", key))
		case "zset":
			fmt.Fprintln(&all, w.redis.Do(t, "ZRANGE", key, "0", "-1"))
		case "none": // the key expired after KEYS
		default:
			t.Errorf("the scan does not know the type of the Redis key %s", key)
		}
	}
	return all.Bytes()
}

func requestBytes(app *echo.Server) []byte {
	text, _ := json.Marshal(app.Requests()) // strings and numbers always marshal
	return text
}

// maxUnscanned bounds the bytes of answers that wait for the scan at the end of the test.
const maxUnscanned = 32 << 20

// recordBytes keeps bytes that a browser received for the next scan.
func (w *world) recordBytes(b []byte) {
	w.mu.Lock()
	w.sentToBrowsers = append(append(w.sentToBrowsers, b...), '\n')
	full := len(w.sentToBrowsers) > maxUnscanned
	w.mu.Unlock()
	if !full {
		return
	}
	n := newSecretFinder(w.secrets())
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pendingLeaks = append(w.pendingLeaks, n.find("an answer to a browser", w.sentToBrowsers)...)
	w.sentToBrowsers = nil
}

// recordHead keeps the head of an answer for the next scan. It removes two values that a
// browser must receive: the module's own cookies, which become secrets here, and the ID
// token in the redirect to the authorization server's logout.
func (w *world) recordHead(resp *http.Response) {
	header := resp.Header.Clone()
	for i, line := range header["Set-Cookie"] {
		pair, attributes, _ := strings.Cut(line, ";")
		name, value, _ := strings.Cut(pair, "=")
		if name != sessionCookie && !strings.HasPrefix(name, loginCookie) {
			continue
		}
		header["Set-Cookie"][i] = name + ";" + attributes
		if value != "" {
			w.mu.Lock()
			w.cookieValues[value] = true
			w.mu.Unlock()
		}
	}
	if to, query, ok := strings.Cut(header.Get("Location"), "?"); ok && to == w.idp.URL+"/end_session" {
		if q, err := url.ParseQuery(query); err == nil {
			q.Del("id_token_hint")
			header.Set("Location", to+"?"+q.Encode())
		}
	}
	var text bytes.Buffer
	_ = header.Write(&text) // a bytes.Buffer never fails
	w.recordBytes(text.Bytes())
}
