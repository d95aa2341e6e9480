package keeper

import (
	"bytes"
	"encoding/json"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// record is one session in plain text. It exists only while the session is created,
// refreshed or ended. A proxied request decrypts the hot part alone.
type record struct {
	hot
	cold
	version uint64          // of the item it was read from; 0 before the first write
	key     *seal.RecordKey // the key it was opened with; nil if it is new
}

// hot is the part of a record that every request needs.
type hot struct {
	created  time.Time
	lastUsed time.Time // the last use that the store has
	end      time.Time // the session's absolute end
	subject  string
	claims   json.RawMessage // of the ID token and of UserInfo together
	// rotation rises with every write except those of a use alone. It tells a
	// record that was merely used from one that another process has refreshed.
	rotation uint64
	token    accessToken
	// sessionExpiry is when the authorization server ends the session (`session_expiry`);
	// zero: it did not say.
	sessionExpiry time.Time
	// refreshEnd is a copy of cold.refreshExpires: requests need it, too. It counts only
	// while refreshEndKnown is token.obtained. An earlier release, which may share the
	// store during an upgrade, carries both along unchanged when it refreshes the token.
	refreshEnd, refreshEndKnown time.Time
	unknownFields               []byte // fields of a later release

	// Not stored: the epoch of the session's shard when it was read (see
	// liveRequests), the cache entry that this is a copy of, or nil, and a use that is
	// later than lastUsed, or zero.
	epoch  uint64
	cached *cacheEntry
	usedAt time.Time
}

// accessToken is one access token and its times. A record can hold one per resource
// (RFC 8707). This release reads and writes the token without a resource and carries
// the others along as unknown fields.
type accessToken struct {
	value    string
	obtained time.Time
	expires  time.Time
	// usableUntil is before expires, to allow for clock differences and the time a
	// request takes to arrive.
	usableUntil time.Time
	// refreshAt is when a request first starts a refresh. Zero: there is no refresh
	// token, or, in a record of an earlier release, the server has refused it once.
	refreshAt     time.Time
	unknownFields []byte
	bearer        string // value of the Authorization header; not stored, see newCacheEntry
}

// cold is the part of a record that refreshes and logouts need.
type cold struct {
	refreshToken   string
	refreshExpires time.Time // zero: the server did not say
	// rotates: the last refresh returned a new refresh token.
	rotates bool
	// unclear: the server has refused the refresh token once without saying that
	// it is invalid. The next such answer ends the session.
	unclear bool
	idToken string
	sid     string // `sid`: the ID of the authorization server's own session
	nonce   string // of the login
	// userInfo are the claims among hot.claims that come from UserInfo.
	userInfo json.RawMessage
	// userAgent is the User-Agent header of the login, cut to the size in a label.
	userAgent string
	// order is the place of the session among those of its user, for SessionLimit: the time
	// of the login in milliseconds since 1970, or more if another session has that place.
	// 0: the login was not limited.
	order         uint64
	unknownFields []byte
}

// Field numbers of the hot part.
const (
	fieldCreated = 1 + iota
	fieldLastUsed
	fieldEnd
	fieldSubject
	fieldClaims
	fieldRotation
	fieldAccessToken
	fieldSessionExpiry
	fieldRefreshEnd
	fieldRefreshEndKnown
)

// Field numbers of an access token.
const (
	fieldTokenResource = 1 + iota
	fieldTokenValue
	fieldTokenObtained
	fieldTokenExpires
	fieldTokenUsableUntil
	fieldTokenRefreshAt
)

// Field numbers of the cold part.
const (
	fieldRefreshToken = 1 + iota
	fieldRefreshExpires
	fieldIDToken
	fieldSID
	fieldRotates
	fieldNonce
	fieldUnclear
	fieldUserInfo
	fieldUserAgent
	fieldOrder
)

// The tables give the order in which fields are written.
var (
	hotFields = []field[hot]{
		timeField(fieldCreated, func(h *hot) *time.Time { return &h.created }),
		timeField(fieldLastUsed, func(h *hot) *time.Time { return &h.lastUsed }),
		timeField(fieldEnd, func(h *hot) *time.Time { return &h.end }),
		stringField(fieldSubject, func(h *hot) *string { return &h.subject }),
		bytesField(fieldClaims, func(h *hot) *json.RawMessage { return &h.claims }),
		uintField(fieldRotation, func(h *hot) *uint64 { return &h.rotation }),
		{number: fieldAccessToken, encode: encodeToken, decode: decodeToken},
		timeField(fieldSessionExpiry, func(h *hot) *time.Time { return &h.sessionExpiry }),
		timeField(fieldRefreshEnd, func(h *hot) *time.Time { return &h.refreshEnd }),
		timeField(fieldRefreshEndKnown, func(h *hot) *time.Time { return &h.refreshEndKnown }),
	}
	tokenFields = []field[accessToken]{
		stringField(fieldTokenValue, func(t *accessToken) *string { return &t.value }),
		timeField(fieldTokenObtained, func(t *accessToken) *time.Time { return &t.obtained }),
		timeField(fieldTokenExpires, func(t *accessToken) *time.Time { return &t.expires }),
		timeField(fieldTokenUsableUntil, func(t *accessToken) *time.Time { return &t.usableUntil }),
		timeField(fieldTokenRefreshAt, func(t *accessToken) *time.Time { return &t.refreshAt }),
	}
	coldFields = []field[cold]{
		stringField(fieldRefreshToken, func(c *cold) *string { return &c.refreshToken }),
		timeField(fieldRefreshExpires, func(c *cold) *time.Time { return &c.refreshExpires }),
		stringField(fieldIDToken, func(c *cold) *string { return &c.idToken }),
		stringField(fieldSID, func(c *cold) *string { return &c.sid }),
		stringField(fieldNonce, func(c *cold) *string { return &c.nonce }),
		bytesField(fieldUserInfo, func(c *cold) *json.RawMessage { return &c.userInfo }),
		boolField(fieldRotates, func(c *cold) *bool { return &c.rotates }),
		boolField(fieldUnclear, func(c *cold) *bool { return &c.unclear }),
		stringField(fieldUserAgent, func(c *cold) *string { return &c.userAgent }),
		uintField(fieldOrder, func(c *cold) *uint64 { return &c.order }),
	}
)

func (h *hot) encode() []byte {
	return encodeFields(hotFields, h, h.unknownFields, 256+len(h.token.value)+len(h.claims))
}

func decodeHot(part []byte) (h hot, ok bool) {
	h.unknownFields, ok = decodeFields(hotFields, part, &h)
	return h, ok
}

func (t *accessToken) encode() []byte {
	return encodeFields(tokenFields, t, t.unknownFields, 64+len(t.value))
}

func decodeAccessToken(part []byte) (t accessToken, ok bool) {
	t.unknownFields, ok = decodeFields(tokenFields, part, &t)
	return t, ok
}

func encodeToken(w *fieldWriter, h *hot) { w.bytes(fieldAccessToken, h.token.encode()) }

func decodeToken(h *hot, part []byte) (known, ok bool) {
	token, ok := decodeAccessToken(part)
	if hasField(token.unknownFields, fieldTokenResource) {
		return false, ok
	}
	h.token = token
	return true, ok
}

func (c *cold) encode() []byte {
	return encodeFields(coldFields, c, c.unknownFields, 64+len(c.refreshToken)+len(c.idToken)+len(c.userInfo)+len(c.userAgent))
}

func decodeCold(part []byte) (c cold, ok bool) {
	c.unknownFields, ok = decodeFields(coldFields, part, &c)
	return c, ok
}

// refreshExpiry is when the refresh token expires, by the server's own word. Zero: it did
// not say, or an earlier release has written the tokens. What that release stored is no
// proof: it kept the expiry of the former refresh token with some new ones.
func (h *hot) refreshExpiry() time.Time {
	if !h.refreshEndKnown.Equal(h.token.obtained) {
		return time.Time{}
	}
	return h.refreshEnd
}

// refreshExpired reports whether the refresh token has expired, by the server's own word.
func (h *hot) refreshExpired(now time.Time) bool {
	end := h.refreshExpiry()
	return !end.IsZero() && now.After(end)
}

// mayHaveExpired reports whether the refresh token has expired, if what any release has
// stored is true. It explains a refusal, and proves nothing.
func (c *cold) mayHaveExpired(now time.Time) bool {
	return !c.refreshExpires.IsZero() && now.After(c.refreshExpires)
}

// setRefreshToken takes the refresh token of an answer, if it has one. The expiry of an
// answer without a refresh token is that of the present one. The caller then sets the
// access token of the answer, if it has one, with setAccessToken.
func (r *record) setRefreshToken(t Tokens) {
	end := r.refreshExpiry()
	if t.RefreshToken != "" {
		r.refreshToken = t.RefreshToken
	}
	if t.RefreshToken != "" || !t.RefreshExpires.IsZero() {
		r.refreshExpires, end = t.RefreshExpires, t.RefreshExpires
	}
	r.refreshEnd, r.refreshEndKnown = end, r.token.obtained
}

// setAccessToken sets the access token of the answer whose refresh token is set. The
// refresh comes before an end that the answer has moved, because another refresh may move
// it again.
func (r *record) setAccessToken(token accessToken, before *hot) {
	r.token, r.refreshEndKnown = token, token.obtained
	end := r.renewalEnd()
	if moved := end.Sub(before.renewalEnd()).Abs(); moved > renewalMargin {
		r.token.refreshBefore(end)
	}
}

// renewalMargin is the least change of an end that is not taken for the rounding of a
// lifetime in seconds.
const renewalMargin = 10 * time.Second

// renewalEnd is the earliest time after which no refresh can renew the session. Zero: the
// server did not say.
func (h *hot) renewalEnd() time.Time {
	end := h.refreshExpiry()
	if end.IsZero() {
		return h.sessionExpiry
	}
	return earlierEnd(end, h.sessionExpiry)
}

// covers reports whether r has the content of other and the same last use or a later
// one.
func (r *record) covers(other *record) bool {
	mine := r.hot
	mine.lastUsed = other.lastUsed
	return !other.lastUsed.Truncate(time.Millisecond).After(r.lastUsed) &&
		bytes.Equal(mine.encode(), other.hot.encode()) && bytes.Equal(r.cold.encode(), other.cold.encode())
}

// sameTokens reports whether two records of one rotation come from the same refresh.
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

// openHot decrypts and decodes the hot part of an item. The result does not refer to
// the store's memory.
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
