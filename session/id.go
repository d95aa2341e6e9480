package session

import (
	"crypto/sha256"
	"encoding/hex"
)

// ID is the key of an item in the store. It is a hash of the cookie's secret and
// the site, so a copy of the store contains no usable cookie.
type ID [sha256.Size]byte

// String returns a short form for logs. It leads to no record and no cookie.
func (id ID) String() string { return hex.EncodeToString(id[:6]) }
