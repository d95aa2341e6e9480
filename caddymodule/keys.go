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

// keyTexts expands the option key. It warns about a key in plain text.
func (h *Handler) keyTexts(e *expander) []string {
	for _, k := range h.Key {
		if e.text("key", k) == k {
			h.logger.Warn("key is written in plain text in the configuration; use {env.NAME} or {file./path}")
			break
		}
	}
	return e.texts("key", h.Key)
}

// keyRing parses the configured keys. Without any it returns the key in Caddy's data
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

// parseKeys parses keys. Each text may have several keys, separated by white space: a
// file has one key per line.
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

// ownKey is the key in Caddy's data directory. The handlers of one configuration that
// have no option key share it. Provision reads the file, and draws a key if there is no
// file. App.Start writes the file, because `caddy validate` provisions too, and may run
// as another user.
type ownKey struct {
	mu    sync.Mutex
	file  string
	drawn *seal.KeyRing // a ring with key; nil until the file was read
	key   seal.Key
	sites []*seal.Site // the sites that use the ring
	kept  atomic.Bool  // the file has the key of all sites
}

// ring reads the key from the file, or draws one, and returns it as a ring.
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

// use registers a site that uses the ring.
func (k *ownKey) use(site *seal.Site) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sites = append(k.sites, site)
}

// keep writes the key to the file, before a site seals with it. If another process has
// written the file first, all sites take the key from the file.
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

// noKey answers requests that arrive before a start that will fail. The start reports
// the cause, which names a file.
func noKey(err error) *handler.Error {
	return &handler.Error{
		Status: http.StatusServiceUnavailable, Code: "temporarily_unavailable", RetryAfter: 5 * time.Second,
		Title: "One moment", Detail: "The site cannot keep sessions at the moment.", Err: err,
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

// makeKey writes a key to a file, unless the file exists, and returns the key in the
// file. Readers never see a partial file: it gets its name once it is complete, and never
// replaces another file.
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
