package session

import (
	"crypto/hmac"
	"crypto/sha256"
)

// What a tag says of an item.
const (
	tagSubject = "sub"
	tagSID     = "sid"
	// tagSubjectAlone is for a session of which the server has told the subject
	// and no sid, so that only the subject finds it.
	tagSubjectAlone = "sub without sid"
)

// tag names what has this value, at this site, under one of the server's keys.
// Without the key it can neither be guessed from a list of users, nor be linked
// to that of another deployment.
func (s *Site) tag(root *rootKey, kind, value string) Tag {
	text := appendPart(nil, s.id[:])
	text = appendPart(text, []byte(kind))
	text = appendPart(text, []byte(value))
	mac := hmac.New(sha256.New, root.tags[:])
	mac.Write(text)
	return Tag(mac.Sum(nil))
}

// tags returns what an item is found by, under the key that seals now: so a
// session moves to a new key with its next write, here as in its record.
func (s *Site) tags(rec *record) ([]Tag, error) {
	root, err := s.sealing()
	if err != nil {
		return nil, err
	}
	var tags []Tag
	switch {
	case rec.sid != "":
		tags = append(tags, s.tag(root, tagSID, rec.sid))
	case rec.subject != "":
		tags = append(tags, s.tag(root, tagSubjectAlone, rec.subject))
	}
	if rec.subject != "" {
		tags = append(tags, s.tag(root, tagSubject, rec.subject))
	}
	return tags, nil
}

// logoutTarget is what a session carries that a logout is about.
type logoutTarget struct {
	tag Tag
	// subject, if not nil, is a second tag that it has to carry.
	subject *Tag
}

func (t logoutTarget) tags() []Tag {
	if t.subject == nil {
		return []Tag{t.tag}
	}
	return []Tag{t.tag, *t.subject}
}

// targets returns what the sessions carry that a logout is about, under every key
// of the ring: the one that sealed a session is among them, or nobody here can
// open it. The key that seals comes last: a session that moves to it during the
// search is found there, if it was not found under its key before.
func (l Logout) targets(s *Site) []logoutTarget {
	var targets []logoutTarget
	for _, root := range s.keys.Load().sealingLast() {
		switch {
		case l.SID == "":
			targets = append(targets, logoutTarget{tag: s.tag(root, tagSubject, l.Subject)})
		case l.Subject == "":
			targets = append(targets, logoutTarget{tag: s.tag(root, tagSID, l.SID)})
		default:
			subject := s.tag(root, tagSubject, l.Subject)
			targets = append(targets, logoutTarget{tag: s.tag(root, tagSID, l.SID), subject: &subject},
				logoutTarget{tag: s.tag(root, tagSubjectAlone, l.Subject)})
		}
	}
	return targets
}

// sealingLast returns the keys of the ring, and at the end the one that seals.
func (k *siteKeys) sealingLast() []*rootKey {
	var keys []*rootKey
	for i := range k.ring.list {
		if root := &k.ring.list[i]; root != k.seals {
			keys = append(keys, root)
		}
	}
	if k.seals != nil {
		keys = append(keys, k.seals)
	}
	return keys
}
