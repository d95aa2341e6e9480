package caddymodule

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/oauth-session/caddy-oauth-session/session"
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
func (h *Handler) keyRing(texts []string) (*session.KeyRing, error) {
	if len(texts) == 0 {
		if h.store.Shared() {
			return nil, errors.New("key: several instances share this store, so give all of them the same key; `caddy oauth-session keygen` makes one")
		}
		key, err := ownKey(dataFile("key"))
		if err != nil {
			return nil, fmt.Errorf("key: none is given, and making one failed: %w", err)
		}
		return session.NewKeyRing(key)
	}
	return parseKeys(texts)
}

// parseKeys reads a list of keys. Each text may hold several, separated by
// white space: a file has one a line.
func parseKeys(texts []string) (*session.KeyRing, error) {
	var keys []session.Key
	for _, text := range texts {
		for field := range strings.FieldsSeq(text) {
			key, err := session.ParseKey(field)
			if err != nil {
				return nil, fmt.Errorf("key %d: %w", len(keys)+1, err)
			}
			keys = append(keys, key)
		}
	}
	ring, err := session.NewKeyRing(keys...)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	return ring, nil
}

// ownKey reads the key in a file, and makes the file first if it is not there.
// Nobody ever sees a half-written one: it appears under its name complete, and
// never replaces another.
func ownKey(file string) (session.Key, error) {
	text, err := os.ReadFile(file)
	if err == nil {
		return session.ParseKey(string(text))
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return session.Key{}, err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return session.Key{}, err
	}
	temp, err := os.CreateTemp(filepath.Dir(file), "key-*") // 0600
	if err != nil {
		return session.Key{}, err
	}
	defer os.Remove(temp.Name())
	_, err = temp.WriteString(session.NewKey().Encode() + "\n")
	err = errors.Join(err, temp.Sync(), temp.Close())
	if err == nil {
		err = os.Link(temp.Name(), file)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return session.Key{}, err
	}
	// Another process may have been faster; then its key counts.
	if text, err = os.ReadFile(file); err != nil {
		return session.Key{}, err
	}
	return session.ParseKey(string(text))
}
