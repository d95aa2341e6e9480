package keeper

import (
	"encoding/json"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// Label is the part of a session that an operator can see without its cookie. It contains
// no token.
type Label struct {
	// Subject is the claim `sub` of the user, or empty.
	Subject string
	// Name is the claim `preferred_username`, `email` or `name`: the first that the user
	// has. It does not identify the user.
	Name string
	// Created is when the user logged in.
	Created time.Time
	// LastUsed is the last use of the session. The keeper writes uses at intervals, so it
	// may be later by up to five minutes (see Config.IdleTimeout).
	LastUsed time.Time
	// UserAgent is the User-Agent header of the login.
	UserAgent string

	order uint64 // see cold.order
}

// Limits of the texts in a label, in bytes: a label has at most session.MaxLabel.
const (
	maxLabelSubject   = 256
	maxLabelName      = 128
	maxLabelUserAgent = 160
)

// Field numbers of a label.
const (
	fieldLabelSubject = 1 + iota
	fieldLabelName
	fieldLabelCreated
	fieldLabelLastUsed
	fieldLabelUserAgent
	fieldLabelOrder
)

var labelFields = []field[Label]{
	stringField(fieldLabelSubject, func(l *Label) *string { return &l.Subject }),
	stringField(fieldLabelName, func(l *Label) *string { return &l.Name }),
	timeField(fieldLabelCreated, func(l *Label) *time.Time { return &l.Created }),
	timeField(fieldLabelLastUsed, func(l *Label) *time.Time { return &l.LastUsed }),
	stringField(fieldLabelUserAgent, func(l *Label) *string { return &l.UserAgent }),
	uintField(fieldLabelOrder, func(l *Label) *uint64 { return &l.order }),
}

// labelOf returns the label of a record.
func labelOf(rec *record) Label {
	return Label{
		Subject: cut(rec.subject, maxLabelSubject), Name: cut(nameOf(rec.claims), maxLabelName),
		Created: rec.created, LastUsed: rec.lastUsed, UserAgent: cut(rec.userAgent, maxLabelUserAgent), order: rec.order,
	}
}

// sealLabel seals the label of a record.
func sealLabel(site *seal.Site, id session.ID, rec *record) ([]byte, error) {
	label := labelOf(rec)
	return site.SealLabel(id, encodeFields(labelFields, &label, nil, 64+maxLabelSubject+maxLabelName+maxLabelUserAgent))
}

// openLabel decrypts and decodes the label of an item.
func openLabel(site *seal.Site, id session.ID, sealed []byte) (*Label, error) {
	plain, err := site.OpenLabel(id, sealed)
	if err != nil {
		return nil, err
	}
	label := new(Label)
	// Unknown fields of a later release need not survive: each write makes a new label.
	if _, ok := decodeFields(labelFields, plain, label); !ok {
		return nil, &seal.UnreadableError{Part: seal.PartLabel}
	}
	return label, nil
}

// nameOf returns the first claim that names a user for people.
func nameOf(claims json.RawMessage) string {
	if len(claims) == 0 {
		return ""
	}
	var all map[string]json.RawMessage
	if json.Unmarshal(claims, &all) != nil {
		return ""
	}
	for _, claim := range []string{"preferred_username", "email", "name"} {
		var name string
		if json.Unmarshal(all[claim], &name) == nil && name != "" {
			return name
		}
	}
	return ""
}

// cut shortens a text to at most limit bytes, at the boundary of a character. It also
// replaces bytes that are not UTF-8.
func cut(text string, limit int) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= limit {
		return text
	}
	for limit > 0 && !utf8.RuneStart(text[limit]) {
		limit--
	}
	return text[:limit]
}
