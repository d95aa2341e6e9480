package seal

import (
	"crypto/hmac"
	"crypto/sha256"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// Kinds of tags. They are part of the HMAC's input.
const (
	tagSubject = "sub"
	tagSID     = "sid"
	// tagSubjectAlone marks a session without a sid. Only its subject finds it.
	tagSubjectAlone = "sub without sid"
)

// tag returns the tag of a value at this site under one of the server's keys.
// Without the key, a tag can neither be guessed from a list of users nor be linked
// to the tag of another deployment.
func (s *Site) tag(root *rootKey, kind, value string) session.Tag {
	text := appendPart(nil, s.id[:])
	text = appendPart(text, []byte(kind))
	text = appendPart(text, []byte(value))
	mac := hmac.New(sha256.New, root.tags[:])
	mac.Write(text)
	return session.Tag(mac.Sum(nil))
}

// Tags returns the tags of a session's item, under the key that seals now. A
// session therefore moves to a new key with its next write, as its record does.
// The error is that of Seal.
func (s *Site) Tags(sid, subject string) ([]session.Tag, error) {
	root, err := s.sealing()
	if err != nil {
		return nil, err
	}
	var tags []session.Tag
	switch {
	case sid != "":
		tags = append(tags, s.tag(root, tagSID, sid))
	case subject != "":
		tags = append(tags, s.tag(root, tagSubjectAlone, subject))
	}
	if subject != "" {
		tags = append(tags, s.tag(root, tagSubject, subject))
	}
	return tags, nil
}

// LogoutTarget selects the sessions of one logout under one key.
type LogoutTarget struct {
	Tag session.Tag
	// Subject, if not nil, is a second tag that each session must carry.
	Subject *session.Tag
}

// Tags returns the one or two tags of the target.
func (t LogoutTarget) Tags() []session.Tag {
	if t.Subject == nil {
		return []session.Tag{t.Tag}
	}
	return []session.Tag{t.Tag, *t.Subject}
}

// LogoutTargets returns the targets of a logout by sid, by subject, or by both.
// There are targets for every key of the ring: a session sealed with another key
// cannot be opened here anyway. The key that seals comes last. A session that
// moves to it during the search is found there if the search under its former key
// missed it.
func (s *Site) LogoutTargets(sid, subject string) []LogoutTarget {
	var targets []LogoutTarget
	for _, root := range s.keys.Load().sealingLast() {
		switch {
		case sid == "":
			targets = append(targets, LogoutTarget{Tag: s.tag(root, tagSubject, subject)})
		case subject == "":
			targets = append(targets, LogoutTarget{Tag: s.tag(root, tagSID, sid)})
		default:
			second := s.tag(root, tagSubject, subject)
			targets = append(targets, LogoutTarget{Tag: s.tag(root, tagSID, sid), Subject: &second},
				LogoutTarget{Tag: s.tag(root, tagSubjectAlone, subject)})
		}
	}
	return targets
}

// sealingLast returns the keys of the ring. The one that seals comes last.
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
