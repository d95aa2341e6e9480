package session

import "errors"

// Part names the part of a stored value that failed a check.
type Part string

// Parts that are checked, in this order.
const (
	// PartItem: the store has something that is not an item (ErrDamaged).
	PartItem Part = "item"
	// PartFormat: size, version or algorithm of the sealed record.
	PartFormat Part = "format"
	// PartKey: the record names a key that is not in the ring.
	PartKey Part = "key"
	// PartCommitment: the record does not belong to this cookie, site and key.
	PartCommitment Part = "commitment"
	// PartVersion: the record was sealed as another version of the item.
	PartVersion Part = "version"
	// PartHot: the part with the access token.
	PartHot Part = "hot"
	// PartCold: the part with the refresh token.
	PartCold Part = "cold"
	// PartLogoutMarker: the time of a logout by the authorization server.
	PartLogoutMarker Part = "logout_marker"
)

// UnreadableError reports something in the store that does not open, although
// the ID of its item leads there. Only a cookie of a real login has such an ID:
// made-up cookies find nothing.
type UnreadableError struct {
	Part Part
	key  keyID // with PartKey
}

func (e *UnreadableError) Error() string {
	switch e.Part {
	case PartItem:
		return "the item is damaged: the store cannot decode it"
	case PartFormat:
		return "the record has an unknown format: it was damaged, or a later release has written it"
	case PartKey:
		return "the record is sealed with key " + e.key.String() + ", which is not configured: the key was dropped too early, or the record was altered"
	case PartCommitment:
		return "the record was altered, or belongs to another session or site"
	case PartVersion:
		return "the record is another version than its item: an old one was put back, or the item was altered"
	case PartLogoutMarker:
		return "the time of a logout by the authorization server was altered"
	default:
		return "the " + string(e.Part) + " part of the record was altered, or belongs to another record"
	}
}

// Is makes every UnreadableError the same to the keeper: no session.
func (*UnreadableError) Is(target error) bool { return target == errUnreadable }

// errUnreadable is the one answer to everything that does not open: unknown
// version, dropped key, another site, an altered byte. A session in this state
// does not exist. Only what another instance could open is something else: a
// foreignKeyError.
var errUnreadable = errors.New("record does not open")

func unreadable(part Part) error { return &UnreadableError{Part: part} }

// reportUnreadable tells the observer if reading an item failed because of what
// the item is.
func (k *Keeper) reportUnreadable(id ID, err error) {
	if errors.Is(err, ErrDamaged) {
		err = unreadable(PartItem)
	}
	if errors.Is(err, errUnreadable) {
		k.Observe(Event{Kind: EventUnreadable, ID: id, Err: err})
	}
}
