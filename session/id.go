package session

import (
	"crypto/sha256"
	"encoding/hex"
)

// ID identifies an item in the store. It is a hash of the cookie's secret and the
// site, so a copy of the store contains no usable cookie.
type ID [sha256.Size]byte

// String returns the first 6 bytes in hexadecimal, for logs. They suffice neither to
// read the item nor to find the cookie.
func (id ID) String() string { return hex.EncodeToString(id[:6]) }
