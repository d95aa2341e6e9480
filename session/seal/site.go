package seal

import (
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"sync/atomic"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// Site is one audience of sessions: the combination of authorization server,
// client and cookie name. A value sealed for one site opens for no other site,
// even with the same store and the same keys. A Site is safe for concurrent use.
type Site struct {
	id   [sha256.Size]byte
	keys atomic.Pointer[siteKeys]
	// changing serializes changes of keys.
	changing sync.Mutex
	// rekeyed receives a value after SetKeys.
	rekeyed chan struct{}
}

// NewSite binds a site to its authorization server (the issuer), its client there,
// and a name that separates sites with equal issuer and client (the cookie's name).
// Without keys the site neither seals nor opens.
func NewSite(keys *KeyRing, issuer, clientID, name string) *Site {
	s := &Site{
		id:      Digest("oauth_session site v1", []byte(issuer), []byte(clientID), []byte(name)),
		rekeyed: make(chan struct{}, 1),
	}
	if keys == nil {
		keys = new(KeyRing)
	}
	first := &siteKeys{ring: keys}
	if len(keys.list) > 0 {
		first.seals = &keys.list[0]
	}
	s.keys.Store(first)
	return s
}

// HasKeys reports whether the site has a key to seal with.
func (s *Site) HasKeys() bool {
	keys := s.keys.Load()
	return keys != nil && len(keys.ring.list) > 0
}

// Ref refers to one session: the secret of its cookie, and the ID of its item in
// the store.
type Ref struct {
	ID     session.ID
	Secret Secret
}

// Ref returns the reference for a secret. It does not depend on the server's
// keys, so a change of keys moves no session.
func (s *Site) Ref(secret Secret) Ref {
	return Ref{ID: Digest("oauth_session id v1", s.id[:], secret[:]), Secret: secret}
}

// Digest is the package's Digest with the site as its first part: two sites get
// different values for the same parts.
func (s *Site) Digest(label string, parts ...[]byte) [sha256.Size]byte {
	return Digest(label, append([][]byte{s.id[:]}, parts...)...)
}

// Digest hashes a label and parts with SHA-256. The length of each part precedes
// it, so two lists of parts never have the same encoding.
func Digest(label string, parts ...[]byte) [sha256.Size]byte {
	b := make([]byte, 0, 192)
	b = appendPart(b, []byte(label))
	for _, p := range parts {
		b = appendPart(b, p)
	}
	return sha256.Sum256(b)
}

func appendPart(b, part []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(part)))
	return append(b, part...)
}
