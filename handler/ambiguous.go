package handler

import (
	"net/http"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// protects reports whether a request needs a session. It also does if the app may
// read the path as another one, which could be protected.
func (h *Handler) protects(r *http.Request) bool {
	return h.Protects(r) || h.hasAmbiguousPath(r) && h.MayProtect(r)
}

// isOptional reports whether a request may pass without a session, however the app
// reads its path.
func (h *Handler) isOptional(r *http.Request) bool {
	return h.Optional(r) && (!h.hasAmbiguousPath(r) || h.AlwaysOptional(r))
}

// hasAmbiguousPath reports whether an app may read the path of a request
// differently than the matchers do. A path that another server might resolve
// differently is never treated as public.
//
// It checks the current URL and the URL that the browser sent: a proxy passes the
// former to the app, FastCGI and placeholders pass the latter. Decision 0017 lists
// the servers and their readings.
func (h *Handler) hasAmbiguousPath(r *http.Request) bool {
	original := h.OriginalURL(r)
	return isAmbiguous(r.Method, r.URL) || isAmbiguous(r.Method, original) || hasFrontController(original.Path)
}

// hasFrontController reports whether the original path contains a segment such as
// index.php with another segment behind it. Most PHP frameworks read /index.php/x
// as /x. Only the original path is checked, because a rewrite may add such a
// script.
func hasFrontController(path string) bool {
	const index = "index."
	directory := path[:max(0, strings.LastIndexByte(path, '/'))]
	for name := range strings.SplitSeq(directory, "/") {
		if len(name) > len(index) && strings.EqualFold(name[:len(index)], index) {
			return true
		}
	}
	return false
}

func isAmbiguous(method string, u *url.URL) bool {
	if method == http.MethodConnect && u.Path == "" && u.Opaque == "" {
		return false // the target is host and port (RFC 9110, section 9.3.6)
	}
	// A proxy sends an opaque URL ("http:private/x") to the app without a leading
	// slash.
	return u.Opaque != "" || hasNeedlessEncoding(u.RawPath) || isAmbiguousPath(u.Path)
}

// isAmbiguousPath checks a path as matchers see it, decoded once. It scans a path
// of plain ASCII names in one pass without an allocation, because it runs for every
// request.
func isAmbiguousPath(path string) bool {
	if path == "" || path[0] != '/' {
		return true
	}
	ascii, start := true, 1 // start of the segment
	for i := 1; i < len(path); i++ {
		switch c := path[i]; {
		case isNameByte[c]:
		case c == '/':
			if isAmbiguousSegment(path[start:i]) {
				return true
			}
			start = i + 1
		case c >= utf8.RuneSelf:
			ascii = false
		case c < ' ', c == 0x7f, c == ';', c == '\\', c == '?', c == '#':
			return true
		case c == '%' && isEncoded(path[i+1:]):
			return true // an app that decodes twice sees another path
		}
	}
	return start < len(path) && isAmbiguousSegment(path[start:]) || !ascii && isAmbiguousText(path)
}

// isNameByte marks the bytes that have no special meaning to any server.
var isNameByte = func() (is [256]bool) {
	for c := range is {
		is[c] = isToken(string(rune(c)))
	}
	return is
}()

// isAmbiguousSegment finds segments that some server changes. Servers resolve "."
// and "..", and merge empty segments. Windows ignores dots and spaces at the end of
// a name, knows files by short names, and reads a colon as the start of a stream's
// name.
func isAmbiguousSegment(s string) bool {
	if s == "" || s[0] == ' ' || s[len(s)-1] == ' ' || s[len(s)-1] == '.' {
		return true
	}
	if colon := strings.IndexByte(s, ':'); colon >= 0 && strings.Contains(s[colon:], ":$") {
		return true
	}
	return isShortName(s)
}

// isShortName reports whether a name has the form of a Windows 8.3 alias, such as
// PRIVAT~1.TXT. The alias opens the file with the long name, past any rule for
// that.
func isShortName(s string) bool {
	tilde := strings.IndexByte(s, '~')
	if tilde < 1 {
		return false
	}
	base, extension, _ := strings.Cut(s, ".")
	if tilde >= len(base)-1 || utf8.RuneCountInString(base) > 8 || utf8.RuneCountInString(extension) > 3 {
		return false
	}
	return strings.Trim(base[tilde+1:], "0123456789") == ""
}

// isEncoded reports whether the text after a percent sign completes an encoded
// character: two hexadecimal digits, or u and four digits (IIS).
func isEncoded(s string) bool {
	if s != "" && (s[0] == 'u' || s[0] == 'U') {
		return len(s) > 4 && isHex(s[1]) && isHex(s[2]) && isHex(s[3]) && isHex(s[4])
	}
	return len(s) > 1 && isHex(s[0]) && isHex(s[1])
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// hasNeedlessEncoding reports whether the raw path encodes a slash, or a character
// that needs no encoding (RFC 3986, section 2.3). Some apps compare a path before
// they decode it, so their rules would not match. The tilde is allowed: older
// clients encode it.
func hasNeedlessEncoding(raw string) bool {
	for {
		i := strings.IndexByte(raw, '%')
		if i < 0 || i+2 >= len(raw) {
			return false
		}
		if isHex(raw[i+1]) && isHex(raw[i+2]) {
			c := unhex(raw[i+1])<<4 | unhex(raw[i+2])
			if c == '/' || c == '.' || isNameByte[c] {
				return true
			}
		}
		raw = raw[i+1:]
	}
}

func unhex(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c >= 'a':
		return c - 'a' + 10
	}
	return c - 'A' + 10
}

// lookalikes are characters that Windows replaces by a slash or a backslash if a
// code page has no better one. Unicode does not list them as compatible characters.
const lookalikes = "\u2044\u2215\u2216\u29f5\u29f8\u29f9\u00a5\u20a9"

// isAmbiguousText checks a path with non-ASCII characters. Ambiguous are characters
// that some server drops, trims or maps to ASCII, bytes that are not UTF-8, and
// letters with a second spelling in Unicode.
func isAmbiguousText(path string) bool {
	if !utf8.ValidString(path) || !norm.NFC.IsNormalString(strings.Map(withoutNukta, path)) || isCompatibleWithASCII(path) {
		return true
	}
	for i, c := range path {
		switch {
		case c < utf8.RuneSelf:
		case unicode.IsControl(c), unicode.IsSpace(c), strings.ContainsRune(lookalikes, c):
			return true
		case c == '\u200c' || c == '\u200d': // used in Persian and Indic words, and in emoji
			next := i + utf8.RuneLen(c)
			if path[i-1] < utf8.RuneSelf || next == len(path) || path[next] < utf8.RuneSelf {
				return true
			}
		case unicode.In(c, unicode.Variation_Selector, unicode.Other_Default_Ignorable_Code_Point):
			if path[i-1] < utf8.RuneSelf { // otherwise part of an emoji or an ideograph
				return true
			}
		case unicode.Is(unicode.Cf, c):
			return true
		}
	}
	return false
}

// withoutNukta replaces an Indic letter with a dot by a plain one. Unicode's normal
// form decomposes these letters, but keyboards and apps do not, so both spellings
// are in everyday use and must not count as ambiguous.
func withoutNukta(c rune) rune {
	switch {
	case '\u0958' <= c && c <= '\u095f', // Devanagari
		c == '\u09dc', c == '\u09dd', c == '\u09df', // Bengali
		c == '\u0a33', c == '\u0a36', '\u0a59' <= c && c <= '\u0a5b', c == '\u0a5e', // Gurmukhi
		c == '\u0b5c', c == '\u0b5d': // Oriya
		return '\u0915'
	}
	return c
}

// isCompatibleWithASCII reports whether Unicode's compatible form of a path has
// other ASCII characters than the path itself. Full-width punctuation of Chinese
// and Japanese titles is allowed if its ASCII form has no meaning to a server. A
// colon before a dollar sign has one on Windows.
func isCompatibleWithASCII(path string) bool {
	compatible := norm.NFKC.String(path)
	return asciiIn(compatible) != asciiIn(path) || strings.Contains(compatible, ":$")
}

// asciiIn returns the ASCII characters of a text, without plain punctuation.
func asciiIn(s string) string {
	return strings.Map(func(c rune) rune {
		if c >= utf8.RuneSelf || strings.ContainsRune("!(),:", c) {
			return -1
		}
		return c
	}, s)
}
