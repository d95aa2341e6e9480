package seal

import "github.com/oauth-session/caddy-oauth-session/session"

// The announcement of the keys of one instance is
//
//	version(1) instance(16) number of keys(1) key id(8)…
//
// A later release may append fields. The instance field is the Holder that the instance
// passes to Announce, by which it recognizes its own announcement. An announcement
// without keys says that the instance is leaving.
const (
	announcementVersion = 1
	announcementHead    = 1 + len(session.Holder{}) + 1
	// maxAnnouncementSize is the limit of session.SharedStore in bytes.
	maxAnnouncementSize = 4096
	// maxAnnouncements limits how many announcements are decoded: an attacker with
	// write access to the store can create any number.
	maxAnnouncements = 1024
)

// encodeAnnouncement encodes the announcement of an instance. If the ring is nil, it
// says that the instance is leaving.
func encodeAnnouncement(from session.Holder, ring *KeyRing) []byte {
	b := append([]byte{announcementVersion}, from[:]...)
	if ring == nil {
		return append(b, 0)
	}
	b = append(b, byte(len(ring.list))) // maxKeys at most
	for i := range ring.list {
		b = append(b, ring.list[i].id[:]...)
	}
	return b
}

// parseAnnouncement decodes an announcement. Anyone with access to the store may have
// written it; ok is false for every value that is not an announcement.
func parseAnnouncement(b []byte) (from session.Holder, keys []KeyID, ok bool) {
	if len(b) < announcementHead || len(b) > maxAnnouncementSize || b[0] != announcementVersion {
		return from, nil, false
	}
	copy(from[:], b[1:])
	n, rest := int(b[announcementHead-1]), b[announcementHead:]
	if n > maxKeys || len(rest) < n*keyIDSize {
		return from, nil, false
	}
	for ; n > 0; n-- {
		keys = append(keys, KeyID(rest[:keyIDSize]))
		rest = rest[keyIDSize:]
	}
	return from, keys, true
}

// othersKeys returns the keys of each other instance that announces any, and the
// number of announcements that cannot be decoded.
func othersKeys(announcements [][]byte, self session.Holder) (others [][]KeyID, unreadable int) {
	for _, b := range announcements[:min(len(announcements), maxAnnouncements)] {
		from, keys, ok := parseAnnouncement(b)
		switch {
		case !ok:
			unreadable++
		case from != self && len(keys) > 0:
			others = append(others, keys)
		}
	}
	return others, unreadable
}
