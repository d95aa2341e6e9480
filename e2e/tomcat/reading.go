// Package tomcat resolves request targets like Tomcat, with a short reimplementation and with a real Tomcat.
package tomcat

import (
	"encoding/hex"
	"slices"
	"strings"
	"unicode/utf8"
)

// A Reading is a configuration of a Tomcat connector, as far as it affects targets.
type Reading struct {
	Name string
	// backslash treats a backslash as a slash. relaxed accepts characters that a target must encode.
	backslash, relaxed bool
	// slashes is the treatment of %2f and %5c.
	slashes encodedSlashes
}

type encodedSlashes int

const (
	refuse encodedSlashes = iota
	decode
	passOn
)

// Readings are the configurations of the connectors in Server.java, in the same order.
var Readings = []Reading{
	{Name: "default"},
	{Name: "loose", backslash: true, relaxed: true, slashes: decode},
	{Name: "passing", slashes: passOn},
}

// The results of Verdict.
const (
	Private = "private" // the servlet at /private/* serves the target
	Public  = "public"  // the default servlet serves the target
	Refused = "400"     // Tomcat refuses the target
)

// Verdict returns Tomcat's treatment of a target.
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

// pathOf returns the path of a target in origin form or absolute form.
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

// withoutParameters removes the path parameters: in each segment, all text from the first semicolon. An encoded semicolon
// starts no parameter.
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

// normalize resolves dot segments and removes empty segments.
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
