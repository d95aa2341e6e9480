package handler

import (
	"encoding/hex"
	"net/url"
	"strings"
)

// maxDecodings is how often a path may be decoded by us and all behind us.
const maxDecodings = 3

// hidesDots reports whether somebody behind us may read a path as one that
// leads upwards: after decoding it once more, with a back slash for a slash, or
// without the parameters of a segment (RFC 3986, section 3.3). Browsers resolve
// such segments before they ask. What is open to everybody by its path is not
// if that can be read as another path.
func hidesDots(u *url.URL) bool {
	path := u.Path
	for range maxDecodings {
		if leadsUp(path) {
			return true
		}
		decoded := decodeOnce(path)
		if decoded == path {
			return false
		}
		path = decoded
	}
	return true // nobody encodes that often without a reason
}

var tabsAndNewlines = strings.NewReplacer("\t", "", "\r", "", "\n", "")

func leadsUp(path string) bool {
	// Not part of any URL to those who read it as browsers do (URL Standard,
	// basic URL parser).
	path = tabsAndNewlines.Replace(path)
	if !strings.Contains(path, "..") {
		return false
	}
	isSlash := func(c rune) bool { return c == '/' || c == '\\' }
	for segment := range strings.FieldsFuncSeq(path, isSlash) {
		rest, ok := strings.CutPrefix(segment, "..")
		if ok && (rest == "" || rest[0] <= ' ' || strings.IndexByte(";?#", rest[0]) >= 0) {
			return true
		}
	}
	return false
}

// decodeOnce leaves a percent sign that encodes nothing as it is: not every
// server refuses it.
func decodeOnce(path string) string {
	if !strings.Contains(path, "%") {
		return path
	}
	decoded := make([]byte, 0, len(path))
	for i := 0; i < len(path); i++ {
		if path[i] == '%' && i+2 < len(path) {
			if c, err := hex.DecodeString(path[i+1 : i+3]); err == nil {
				decoded = append(decoded, c[0])
				i += 2
				continue
			}
		}
		decoded = append(decoded, path[i])
	}
	return string(decoded)
}
