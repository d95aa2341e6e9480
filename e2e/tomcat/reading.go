// Package tomcat reads request targets as Tomcat does: by a stand-in of a few lines, and by a real Tomcat.
package tomcat

import (
	"encoding/hex"
	"slices"
	"strings"
	"unicode/utf8"
)

// A Reading is how a connector of Tomcat is configured to read targets.
type Reading struct {
	Name string
	// backslash accepts a back slash, as a slash; relaxed accepts further characters that a target must encode.
	backslash, relaxed bool
	// slashes says what becomes of %2f and %5c.
	slashes encodedSlashes
}

type encodedSlashes int

const (
	refuse encodedSlashes = iota
	decode
	passOn
)

// Readings are those of the connectors in Server.java, in their order.
var Readings = []Reading{
	{Name: "default"},
	{Name: "loose", backslash: true, relaxed: true, slashes: decode},
	{Name: "passing", slashes: passOn},
}

// What Tomcat does with a target.
const (
	Private = "private" // the servlet at /private/*
	Public  = "public"  // the one for everything else
	Refused = "400"
)

// Verdict says where a target leads.
func (rd Reading) Verdict(target string) string {
	path, ok := pathOf(target)
	if !ok || !rd.accepts(path) {
		return Refused
	}
	path, ok = rd.decode(withoutParameters(path))
	if !ok {
		return Refused
	}
	path, ok = rd.normalize(path)
	switch {
	case !ok || !utf8.ValidString(path):
		return Refused
	case path == "/private" || strings.HasPrefix(path, "/private/"):
		return Private
	}
	return Public
}

// pathOf takes the path out of a target in origin form or absolute form.
func pathOf(target string) (path string, ok bool) {
	path, _, _ = strings.Cut(target, "?")
	if rest, found := strings.CutPrefix(path, "http://"); found {
		host, path, _ := strings.Cut(rest, "/")
		return "/" + path, !strings.Contains(host, `\`)
	}
	return path, true
}

func (rd Reading) accepts(path string) bool {
	for i := range len(path) {
		if c := path[i]; c <= ' ' || c >= 0x7f || c == '#' || strings.IndexByte("\"<>[\\]^`{|}", c) >= 0 && !rd.relaxed {
			return false
		}
	}
	return true
}

// withoutParameters removes what begins with a semicolon from each segment. Encoded ones are none.
func withoutParameters(path string) string {
	var segments []string
	for segment := range strings.SplitSeq(path, "/") {
		name, _, _ := strings.Cut(segment, ";")
		segments = append(segments, name)
	}
	return strings.Join(segments, "/")
}

func (rd Reading) decode(path string) (decoded string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(path); i++ {
		if path[i] != '%' {
			b.WriteByte(path[i])
			continue
		}
		if i+2 >= len(path) {
			return "", false
		}
		c, err := hex.DecodeString(path[i+1 : i+3])
		if err != nil {
			return "", false
		}
		switch slash := c[0] == '/' || c[0] == '\\'; {
		case slash && rd.slashes == refuse:
			return "", false
		case slash && rd.slashes == passOn:
			b.WriteString(path[i : i+3])
		default:
			b.WriteByte(c[0])
		}
		i += 2
	}
	return b.String(), true
}

// normalize resolves dots and drops empty segments.
func (rd Reading) normalize(path string) (normal string, ok bool) {
	if strings.Contains(path, "\x00") || strings.Contains(path, `\`) && !rd.backslash {
		return "", false
	}
	path = strings.ReplaceAll(path, `\`, "/")
	if !strings.HasPrefix(path, "/") {
		return "", false
	}
	var kept []string
	segments := strings.Split(path[1:], "/")
	for _, segment := range segments {
		switch {
		case segment == "" || segment == ".":
		case segment == ".." && len(kept) == 0:
			return "", false
		case segment == "..":
			kept = kept[:len(kept)-1]
		default:
			kept = append(kept, segment)
		}
	}
	if last := segments[len(segments)-1]; slices.Contains([]string{"", ".", ".."}, last) {
		kept = append(kept, "")
	}
	return "/" + strings.Join(kept, "/"), true
}
