package seal

import "github.com/oauth-session/caddy-oauth-session/session"

// A note announces the keys of one instance:
//
//	version(1) instance(16) number of keys(1) key id(8)…
//
// A later release may append fields. The instance field is the Holder of the
// announcement: an instance recognizes its own note by it. A note without keys says
// that the instance is leaving.
const (
	keyNoteVersion = 1
	keyNoteHead    = 1 + len(session.Holder{}) + 1
	// maxNoteSize is the limit of session.SharedStore in bytes.
	maxNoteSize = 4096
	// maxNotes bounds how many notes are read: an attacker with write access to
	// the store can create any number.
	maxNotes = 1024
)

// keyNote encodes the note of an instance. A nil ring says that it is leaving.
func keyNote(from session.Holder, ring *KeyRing) []byte {
	b := append([]byte{keyNoteVersion}, from[:]...)
	if ring == nil {
		return append(b, 0)
	}
	b = append(b, byte(len(ring.list))) // maxKeys at most
	for i := range ring.list {
		b = append(b, ring.list[i].id[:]...)
	}
	return b
}

// parseKeyNote decodes a note. Anyone with access to the store may have written it;
// ok is false for every value that is not a note.
func parseKeyNote(note []byte) (from session.Holder, keys []KeyID, ok bool) {
	if len(note) < keyNoteHead || len(note) > maxNoteSize || note[0] != keyNoteVersion {
		return from, nil, false
	}
	copy(from[:], note[1:])
	n, rest := int(note[keyNoteHead-1]), note[keyNoteHead:]
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
// number of notes that cannot be decoded.
func othersKeys(notes [][]byte, self session.Holder) (others [][]KeyID, unreadable int) {
	for _, note := range notes[:min(len(notes), maxNotes)] {
		from, keys, ok := parseKeyNote(note)
		switch {
		case !ok:
			unreadable++
		case from != self && len(keys) > 0:
			others = append(others, keys)
		}
	}
	return others, unreadable
}
