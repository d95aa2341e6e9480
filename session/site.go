package session

import (
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"sync/atomic"
)

// Site is one audience of sessions: what was sealed for one site opens for no
// other, even with the same store and the same keys.
type Site struct {
	id   [sha256.Size]byte
	keys atomic.Pointer[siteKeys]
	// changing serializes those who replace keys.
	changing sync.Mutex
	// rekeyed holds a value when the ring has changed.
	rekeyed chan struct{}
}

// NewSite binds a site to its authorization server, the client there and a
// name that tells apart what shares both (the cookie's name). Without keys it
// neither seals nor opens, and NewKeeper refuses it.
func NewSite(keys *KeyRing, issuer, clientID, name string) *Site {
	s := &Site{
		id:      digest("oauth_session site v1", []byte(issuer), []byte(clientID), []byte(name)),
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

func (s *Site) hasKeys() bool {
	keys := s.keys.Load()
	return keys != nil && len(keys.ring.list) > 0
}

// ID returns where the session of a secret is kept. It does not depend on the
// server's keys, so that changing those moves no session.
func (s *Site) ID(secret Secret) ID {
	return digest("oauth_session id v1", s.id[:], secret[:])
}

// digest hashes a label and parts, each with its length before it, so that no
// two lists of parts read alike.
func digest(label string, parts ...[]byte) [sha256.Size]byte {
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
