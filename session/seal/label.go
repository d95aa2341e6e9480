package seal

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// A sealed label is
//
//	version(1) key id(8) | nonce(12) ciphertext tag(16)
//
// The server's key alone opens it, so that an operator can list sessions without their
// cookies. A record needs the cookie, too: a label contains no token. Decision 0039 has
// the reasons.
const (
	labelVersion  = 1
	labelHeadSize = 1 + keyIDSize
)

// SealLabel encrypts the label of an item with the key that seals now. It opens for this
// site and this ID only. The error is that of Seal.
func (s *Site) SealLabel(id session.ID, plaintext []byte) ([]byte, error) {
	root, err := s.sealing()
	if err != nil {
		return nil, fmt.Errorf("sealing label: %w", err)
	}
	aead, err := s.labelKey(root, id)
	if err != nil {
		return nil, err
	}
	out := make([]byte, 0, labelHeadSize+len(plaintext)+gcmOverhead)
	out = append(out, labelVersion)
	out = append(out, root.id[:]...)
	out = aead.Seal(out, nil, plaintext, s.labelAAD(out, id))
	if len(out) > session.MaxLabel {
		return nil, fmt.Errorf("the session's label takes %d bytes, the limit is %d", len(out), session.MaxLabel)
	}
	return out, nil
}

// OpenLabel reverses SealLabel. The error is an ErrUnreadable, or another one if an
// instance other than this one may have the key.
func (s *Site) OpenLabel(id session.ID, label []byte) ([]byte, error) {
	if len(label) < labelHeadSize+gcmOverhead || label[0] != labelVersion {
		return nil, unreadable(PartLabel)
	}
	head, body := label[:labelHeadSize], label[labelHeadSize:]
	root, err := s.opening(KeyID(head[1:]))
	if err != nil {
		return nil, err
	}
	aead, err := s.labelKey(root, id)
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(nil, nil, body, s.labelAAD(head, id))
	if err != nil {
		return nil, unreadable(PartLabel)
	}
	return plain, nil
}

// labelKey derives the key of one label. Each write of a session seals its label, so one
// key for all sessions would reach the limit of random nonces within months.
func (s *Site) labelKey(root *rootKey, id session.ID) (cipher.AEAD, error) {
	info := appendPart(nil, []byte("oauth_session label v1"))
	info = appendPart(info, s.id[:])
	info = appendPart(info, id[:])
	key, err := hkdf.Expand(sha256.New, root.labels[:], string(info), keySize)
	if err != nil {
		return nil, fmt.Errorf("deriving key of label: %w", err)
	}
	return newAEAD(key)
}

func (s *Site) labelAAD(head []byte, id session.ID) []byte {
	aad := appendPart(nil, head)
	aad = appendPart(aad, s.id[:])
	return appendPart(aad, id[:])
}
