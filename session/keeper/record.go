package keeper

import (
	"bytes"
	"encoding/json"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// record is one session in the clear. It exists while it is made, refreshed or
// ended; a proxied request opens the hot part alone.
type record struct {
	hot
	cold
	version uint64          // of the item it was read from; 0 before the first write
	key     *seal.RecordKey // that it was opened with; nil if it is new
}

// hot is what every request needs.
type hot struct {
	created  time.Time
	lastUsed time.Time // last use, as far as it was written
	end      time.Time // absolute
	subject  string
	claims   json.RawMessage // of the ID token and of UserInfo together
	// rotation rises with every write that is more than a use. It tells a record that was
	// merely used from one that somebody else has refreshed.
	rotation      uint64
	token         accessToken
	unknownFields []byte // fields of a later release
	// Not kept: see live, and what it was copied from.
	epoch  uint64
	cached *cacheEntry
}

// accessToken is one access token and its times. A record holds a set of them,
// one per resource; this release reads and writes the one without a resource
// and carries the others along.
type accessToken struct {
	value    string
	obtained time.Time
	expires  time.Time
	// usableUntil lies before expires, by what clocks and networks may differ.
	usableUntil time.Time
	// refreshAt is when a request first causes a refresh. Zero: there is no refresh
	// token, or, in a record of an earlier release, it was refused once.
	refreshAt     time.Time
	unknownFields []byte
	bearer        string // not kept: see opened
}

// cold is what refreshing and logging out need.
type cold struct {
	refreshToken   string
	refreshExpires time.Time // zero: not told
	// rotates: the server gave a new refresh token for the one before.
	rotates bool
	// unclear: the server has refused the refresh token once without saying that
	// it is dead. The next such answer ends the session.
	unclear bool
	idToken string
	sid     string // the authorization server's name of its own session
	nonce   string // of the login
	// userInfo are the claims among hot.claims that come from UserInfo.
	userInfo      json.RawMessage
	unknownFields []byte
}

// Fields of the hot part.
const (
	fieldCreated = 1 + iota
	fieldLastUsed
	fieldEnd
	fieldSubject
	fieldClaims
	fieldRotation
	fieldAccessToken
)

// Fields of an access token.
const (
	fieldTokenResource = 1 + iota
	fieldTokenValue
	fieldTokenObtained
	fieldTokenExpires
	fieldTokenUsableUntil
	fieldTokenRefreshAt
)

// Fields of the cold part.
const (
	fieldRefreshToken = 1 + iota
	fieldRefreshExpires
	fieldIDToken
	fieldSID
	fieldRotates
	fieldNonce
	fieldUnclear
	fieldUserInfo
)

func (h *hot) encode() []byte {
	w := make(fieldWriter, 0, 256+len(h.token.value)+len(h.claims)+len(h.unknownFields))
	w.time(fieldCreated, h.created)
	w.time(fieldLastUsed, h.lastUsed)
	w.time(fieldEnd, h.end)
	w.string(fieldSubject, h.subject)
	w.bytes(fieldClaims, h.claims)
	w.uint(fieldRotation, h.rotation)
	w.bytes(fieldAccessToken, h.token.encode())
	return append(w, h.unknownFields...)
}

func decodeHot(part []byte) (h hot, ok bool) {
	whole := true
	h.unknownFields, ok = walkFields(part, func(field uint64, v []byte) bool {
		switch field {
		case fieldCreated:
			h.created = decodeTime(v)
		case fieldLastUsed:
			h.lastUsed = decodeTime(v)
		case fieldEnd:
			h.end = decodeTime(v)
		case fieldSubject:
			h.subject = string(v)
		case fieldClaims:
			h.claims = v
		case fieldRotation:
			h.rotation = decodeUint(v)
		case fieldAccessToken:
			token, resource, tokenOK := decodeAccessToken(v)
			whole = whole && tokenOK
			if resource {
				return false
			}
			h.token = token
		default:
			return false
		}
		return true
	})
	return h, ok && whole
}

func (t *accessToken) encode() []byte {
	w := make(fieldWriter, 0, 64+len(t.value)+len(t.unknownFields))
	w.string(fieldTokenValue, t.value)
	w.time(fieldTokenObtained, t.obtained)
	w.time(fieldTokenExpires, t.expires)
	w.time(fieldTokenUsableUntil, t.usableUntil)
	w.time(fieldTokenRefreshAt, t.refreshAt)
	return append(w, t.unknownFields...)
}

// decodeAccessToken also reports whether the token is for a named resource.
func decodeAccessToken(part []byte) (t accessToken, resource, ok bool) {
	t.unknownFields, ok = walkFields(part, func(field uint64, v []byte) bool {
		switch field {
		case fieldTokenResource:
			resource = true
			return false
		case fieldTokenValue:
			t.value = string(v)
		case fieldTokenObtained:
			t.obtained = decodeTime(v)
		case fieldTokenExpires:
			t.expires = decodeTime(v)
		case fieldTokenUsableUntil:
			t.usableUntil = decodeTime(v)
		case fieldTokenRefreshAt:
			t.refreshAt = decodeTime(v)
		default:
			return false
		}
		return true
	})
	return t, resource, ok
}

func (c *cold) encode() []byte {
	w := make(fieldWriter, 0, 64+len(c.refreshToken)+len(c.idToken)+len(c.userInfo)+len(c.unknownFields))
	w.string(fieldRefreshToken, c.refreshToken)
	w.time(fieldRefreshExpires, c.refreshExpires)
	w.string(fieldIDToken, c.idToken)
	w.string(fieldSID, c.sid)
	w.string(fieldNonce, c.nonce)
	w.bytes(fieldUserInfo, c.userInfo)
	if c.rotates {
		w.uint(fieldRotates, 1)
	}
	if c.unclear {
		w.uint(fieldUnclear, 1)
	}
	return append(w, c.unknownFields...)
}

// refreshExpired reports whether the server said the refresh token ends before
// now. That alone ends no session: the server is asked.
func (c *cold) refreshExpired(now time.Time) bool {
	return !c.refreshExpires.IsZero() && now.After(c.refreshExpires)
}

func decodeCold(part []byte) (c cold, ok bool) {
	c.unknownFields, ok = walkFields(part, func(field uint64, v []byte) bool {
		switch field {
		case fieldRefreshToken:
			c.refreshToken = string(v)
		case fieldRefreshExpires:
			c.refreshExpires = decodeTime(v)
		case fieldIDToken:
			c.idToken = string(v)
		case fieldSID:
			c.sid = string(v)
		case fieldNonce:
			c.nonce = string(v)
		case fieldRotates:
			c.rotates = decodeUint(v) != 0
		case fieldUnclear:
			c.unclear = decodeUint(v) != 0
		case fieldUserInfo:
			c.userInfo = bytes.Clone(v) // the part is cleared
		default:
			return false
		}
		return true
	})
	return c, ok
}

// covers reports whether a record says all that another one says: the same, or
// the same and a later use.
func (r *record) covers(other *record) bool {
	mine := r.hot
	mine.lastUsed = other.lastUsed
	return !other.lastUsed.Truncate(time.Millisecond).After(r.lastUsed) &&
		bytes.Equal(mine.encode(), other.hot.encode()) && bytes.Equal(r.cold.encode(), other.cold.encode())
}

// sameTokens tells a record that was merely used from another refresh.
func (r *record) sameTokens(other *record) bool {
	return r.refreshToken == other.refreshToken && r.token.value == other.token.value
}

// sealRecord seals a record as the given version of its item.
func sealRecord(site *seal.Site, ref seal.Ref, rec *record, version uint64) ([]byte, error) {
	hotPart, coldPart := rec.hot.encode(), rec.cold.encode()
	defer clear(hotPart)
	defer clear(coldPart)
	return site.Seal(ref, rec.key, version, hotPart, coldPart)
}

// openHot decrypts and decodes the hot part of an item. The result does not refer
// to the store's memory.
func openHot(site *seal.Site, ref seal.Ref, item session.Item) (hot, error) {
	v, err := site.Open(ref, item)
	if err != nil {
		return hot{}, err
	}
	return decodeSealedHot(v)
}

// openRecord decrypts and decodes both parts of an item.
func openRecord(site *seal.Site, ref seal.Ref, item session.Item) (*record, error) {
	v, err := site.Open(ref, item)
	if err != nil {
		return nil, err
	}
	rec := &record{version: item.Version, key: v.Key}
	if rec.hot, err = decodeSealedHot(v); err != nil {
		return nil, err
	}
	part, err := v.Cold()
	if err != nil {
		return nil, err
	}
	defer clear(part)
	var ok bool
	if rec.cold, ok = decodeCold(part); !ok {
		return nil, &seal.UnreadableError{Part: seal.PartCold}
	}
	return rec, nil
}

func decodeSealedHot(v *seal.Sealed) (hot, error) {
	part, err := v.Hot()
	if err != nil {
		return hot{}, err
	}
	h, ok := decodeHot(part)
	if !ok {
		return hot{}, &seal.UnreadableError{Part: seal.PartHot}
	}
	return h, nil
}
