package caddymodule

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oauth-session/caddy-oauth-session/handler"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

func (h *Handler) keyTexts(e *expander) []string {
	for _, k := range h.Key {
		if e.text("key", k) == k {
			h.logger.Warn("key stands in the configuration itself, where everybody who reads that sees it: use {env.NAME} or {file./path}")
			break
		}
	}
	return e.texts("key", h.Key)
}

// keyRing parses the keys that were given, or uses the one in Caddy's data
// directory.
func (h *Handler) keyRing(texts []string, own *ownKey) (*seal.KeyRing, error) {
	if len(texts) > 0 {
		return parseKeys(texts)
	}
	if h.store.Shared() {
		return nil, errors.New("key: several instances share this store, so give all of them the same key; `caddy oauth-session keygen` makes one")
	}
	h.ownKey = own
	return own.ring()
}

// parseKeys reads a list of keys. Each text may hold several, separated by
// white space: a file has one a line.
func parseKeys(texts []string) (*seal.KeyRing, error) {
	var keys []seal.Key
	for _, text := range texts {
		for field := range strings.FieldsSeq(text) {
			key, err := seal.ParseKey(field)
			if err != nil {
				return nil, fmt.Errorf("key %d: %w", len(keys)+1, err)
			}
			keys = append(keys, key)
		}
	}
	ring, err := seal.NewKeyRing(keys...)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	return ring, nil
}

// ownKey is the key in Caddy's data directory, for the handlers of one
// configuration that are given none. Provisioning reads the file, and draws a key
// if there is none; the file is written when the configuration starts, because
// `caddy validate` provisions, too, and may do so as another user.
type ownKey struct {
	mu    sync.Mutex
	file  string
	drawn *seal.KeyRing // the ring of key; nil until the file was looked for
	key   seal.Key
	sites []*seal.Site // they have the key that was drawn
	kept  atomic.Bool  // the file holds the key of all sites
}

// ring returns the key as a ring.
func (k *ownKey) ring() (*seal.KeyRing, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.drawn != nil {
		return k.drawn, nil
	}
	k.file = dataFile("key")
	key, err := readKey(k.file)
	switch {
	case err == nil:
		k.kept.Store(true)
	case errors.Is(err, fs.ErrNotExist):
		key = seal.NewKey()
	default:
		return nil, fmt.Errorf("key: none is given, and the one in Caddy's data directory cannot be read: %w", err)
	}
	k.key = key
	k.drawn, err = seal.NewKeyRing(key)
	return k.drawn, err
}

// use notes a site that has the ring.
func (k *ownKey) use(site *seal.Site) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sites = append(k.sites, site)
}

// keep makes sure that the file holds the key, before anything is sealed with
// it. If another process has written the file meanwhile, its key counts.
func (k *ownKey) keep() error {
	if k.kept.Load() {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.kept.Load() || k.drawn == nil {
		return nil
	}
	key, err := makeKey(k.file, k.key)
	if err != nil {
		return fmt.Errorf("key: none is given, and making one failed: %w", err)
	}
	if key != k.key {
		ring, err := seal.NewKeyRing(key)
		if err != nil {
			return err
		}
		for _, site := range k.sites {
			site.SetKeys(ring)
		}
	}
	k.kept.Store(true)
	return nil
}

// noKey is for requests before a start that will fail: the start reports the
// cause, which names a file.
func noKey(err error) *handler.Error {
	return &handler.Error{
		Status: http.StatusServiceUnavailable, Code: "temporarily_unavailable", RetryAfter: 5 * time.Second,
		Title: "One moment", Detail: "Sessions cannot be kept at the moment.", Err: err,
	}
}

func readKey(file string) (seal.Key, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return seal.Key{}, err
	}
	key, err := seal.ParseKey(string(text))
	if err != nil {
		return seal.Key{}, fmt.Errorf("%s: %w", file, err)
	}
	return key, nil
}

// makeKey writes a key into a file, unless it is there already, and returns the
// key that is in the file. The file is never seen half-written: it gets its name
// when it is complete, and never replaces another.
func makeKey(file string, key seal.Key) (seal.Key, error) {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return seal.Key{}, err
	}
	temp, err := os.CreateTemp(filepath.Dir(file), "key-*") // 0600
	if err != nil {
		return seal.Key{}, err
	}
	defer os.Remove(temp.Name())
	_, err = temp.WriteString(key.Encode() + "\n")
	err = errors.Join(err, temp.Sync(), temp.Close())
	if err == nil {
		err = os.Link(temp.Name(), file)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return seal.Key{}, err
	}
	return readKey(file)
}
