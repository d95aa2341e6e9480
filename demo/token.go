package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"
)

// decoded is what a JWT (RFC 7519) says. Nothing of it has been verified: it is for looking at.
type decoded struct {
	Header   string `json:"header"` // JSON, indented
	Payload  string `json:"payload"`
	IssuedAt int64  `json:"issued_at,omitempty"` // seconds since 1970; 0 when the token does not say
	Expires  int64  `json:"expires,omitempty"`
}

// decode returns nil for a token that is no signed JWT: such a token is opaque, only the authorization server can tell
// what it means.
func decode(token string) *decoded {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil
	}
	header, ok := indentPart(parts[0])
	if !ok {
		return nil
	}
	payload, ok := indentPart(parts[1])
	if !ok {
		return nil
	}
	var times struct {
		IssuedAt float64 `json:"iat"`
		Expires  float64 `json:"exp"`
	}
	// Times of the wrong type are shown with the rest and not reckoned with.
	if json.Unmarshal([]byte(payload), &times) != nil {
		return &decoded{Header: header, Payload: payload}
	}
	return &decoded{Header: header, Payload: payload, IssuedAt: int64(times.IssuedAt), Expires: int64(times.Expires)}
}

func indentPart(part string) (string, bool) {
	text, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil || !bytes.HasPrefix(text, []byte("{")) {
		return "", false
	}
	var indented bytes.Buffer
	if json.Indent(&indented, text, "", "  ") != nil {
		return "", false
	}
	return indented.String(), true
}

// Lifetime is empty when the token does not say.
func (d *decoded) Lifetime() string {
	if d.IssuedAt == 0 || d.Expires == 0 {
		return ""
	}
	return (time.Duration(d.Expires-d.IssuedAt) * time.Second).String()
}
