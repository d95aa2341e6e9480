package seal

import "errors"

// Part names the part of a stored value that failed a check.
type Part string

// The parts, in the order in which they are checked.
const (
	// PartItem is an entry that the store cannot decode (session.ErrDamaged).
	PartItem Part = "item"
	// PartFormat is the size, version or algorithm of the sealed record.
	PartFormat Part = "format"
	// PartKey is the key's ID: the ring does not contain it.
	PartKey Part = "key"
	// PartCommitment binds the record to its cookie, site and key.
	PartCommitment Part = "commitment"
	// PartVersion is the item version that the record was sealed as.
	PartVersion Part = "version"
	// PartHot is the part with the access token.
	PartHot Part = "hot"
	// PartCold is the part with the refresh token.
	PartCold Part = "cold"
	// PartLogoutMarker is the time of a logout by the authorization server.
	PartLogoutMarker Part = "logout_marker"
	// PartLabel is the label of a session, for operators.
	PartLabel Part = "label"
)

// Parts returns all parts, for metrics.
func Parts() []Part {
	return []Part{PartItem, PartFormat, PartKey, PartCommitment, PartVersion, PartHot, PartCold, PartLogoutMarker, PartLabel}
}

// UnreadableError reports a stored value that does not open. Its item has the ID of
// a cookie from a real login: invented cookies find no item.
type UnreadableError struct {
	Part Part
	key  KeyID // with PartKey
}

func (e *UnreadableError) Error() string {
	switch e.Part {
	case PartItem:
		return "the item is damaged: the store cannot decode it"
	case PartFormat:
		return "the record has an unknown format: it was damaged, or a later release wrote it"
	case PartKey:
		return "the record is sealed with key " + e.key.String() + ", which is not configured: the key was dropped too early, or the record was altered"
	case PartCommitment:
		return "the record was altered, or belongs to another session or site"
	case PartVersion:
		return "the record has another version than its item: an old one was put back, or the item was altered"
	case PartLogoutMarker:
		return "the time of a logout by the authorization server was altered"
	case PartLabel:
		return "the label was altered, or belongs to another session or site"
	default:
		return "the " + string(e.Part) + " part of the record was altered, or belongs to another record"
	}
}

// Is makes every UnreadableError an ErrUnreadable.
func (*UnreadableError) Is(target error) bool { return target == ErrUnreadable }

// ErrUnreadable reports a value that nothing can open: unknown version, dropped
// key, another site, an altered byte. A session in this state does not exist. A
// value that another instance may be able to open is not an ErrUnreadable.
var ErrUnreadable = errors.New("record does not open")

func unreadable(part Part) error { return &UnreadableError{Part: part} }
