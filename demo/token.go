package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"
)

// decoded holds the contents of a JWT (RFC 7519) for display. The signature has not been verified.
type decoded struct {
	Header   string `json:"header"` // JSON, indented
	Payload  string `json:"payload"`
	IssuedAt int64  `json:"issued_at,omitempty"` // seconds since 1970; 0 without iat
	Expires  int64  `json:"expires,omitempty"`
}

// decode returns nil for a token that is not a signed JWT. Only the authorization server can interpret such a token.
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
	// Times of the wrong type appear in the payload only.
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

// Lifetime returns the time from iat to exp, or "" if the token lacks one of them.
func (d *decoded) Lifetime() string {
	if d.IssuedAt == 0 || d.Expires == 0 {
		return ""
	}
	return (time.Duration(d.Expires-d.IssuedAt) * time.Second).String()
}
