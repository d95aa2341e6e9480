package session

// What an instance announces about its keys is
//
//	version(1) instance(16) number of keys(1) key id(8)…
//
// A later release may append something. The instance is the holder under which
// the note is announced; with it an instance knows its own note. A note
// without keys says that the instance is leaving.
const (
	keyNoteVersion = 1
	keyNoteHead    = 1 + len(Holder{}) + 1
	// maxNoteSize is what a store keeps (SharedStore.Announce).
	maxNoteSize = 4096
	// maxNotes bounds how many are looked at: whoever can write to the store
	// can make as many as it holds.
	maxNotes = 1024
)

// keyNote is the note of an instance on its keys. A nil ring leaves.
func keyNote(from Holder, ring *KeyRing) []byte {
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

// parseKeyNote reads a note, which anybody may have written. It reports false
// for what is not one.
func parseKeyNote(note []byte) (from Holder, keys []keyID, ok bool) {
	if len(note) < keyNoteHead || len(note) > maxNoteSize || note[0] != keyNoteVersion {
		return from, nil, false
	}
	copy(from[:], note[1:])
	n, rest := int(note[keyNoteHead-1]), note[keyNoteHead:]
	if n > maxKeys || len(rest) < n*keyIDSize {
		return from, nil, false
	}
	for ; n > 0; n-- {
		keys = append(keys, keyID(rest[:keyIDSize]))
		rest = rest[keyIDSize:]
	}
	return from, keys, true
}

// othersKeys returns the keys of each instance but the one given, and how many
// notes are none. Nobody has a say who has no keys.
func othersKeys(notes [][]byte, self Holder) (others [][]keyID, unreadable int) {
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
