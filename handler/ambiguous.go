package handler

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/oauth-session/caddy-oauth-session/session/keeper"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// protects reports whether a request needs a session, or would if the app read
// its path in another way.
func (h *Handler) protects(r *http.Request) bool {
	return h.Protects(r) || h.hasAmbiguousPath(r) && h.MayProtect(r)
}

// isOptional reports whether a request may pass without a session, however the
// app reads its path.
func (h *Handler) isOptional(r *http.Request) bool {
	return h.Optional(r) && (!h.hasAmbiguousPath(r) || h.AlwaysOptional(r))
}

// relayOwned is for a request that may belong to this Handler by its path, and
// that another one before has passed on as its own. The cookies are off by now,
// and a login would lead here again: so it has to be the same login. The session
// then counts for this Handler as for the one before.
func (h *Handler) relayNested(w http.ResponseWriter, r *http.Request, owner *cookieGuard, next Next) error {
	var none seal.Secret
	switch {
	case h.Keeper.Site.Ref(none).ID != owner.handler.Keeper.Site.Ref(none).ID:
		return h.fail(w, r, ambiguousPath())
	case owner.session == nil:
		return h.relay(w, r, next)
	}
	c := &cookies{secret: owner.secret, valid: true}
	s, err := h.loadSession(r, c)
	switch {
	case err == nil:
		return h.relaySession(w, r, c, s, next)
	case errors.Is(err, errTooEarly):
		return h.fail(w, r, tooEarly())
	case errors.Is(err, errTooOld), errors.Is(err, keeper.ErrNoSession):
		return h.fail(w, r, ambiguousPath())
	}
	return h.fail(w, r, unavailable(err))
}

// hasAmbiguousPath reports whether an app may read the path of a request as
// another path than the matchers do. It judges the URL as it is here and as the
// browser sent it: apps get the one from a proxy, and the other from FastCGI and
// from placeholders. Decision 0017 lists the readers.
func (h *Handler) hasAmbiguousPath(r *http.Request) bool {
	original := h.OriginalURL(r)
	return isAmbiguous(r.Method, r.URL) || isAmbiguous(r.Method, original) || hasFrontController(original.Path)
}

// hasFrontController reports whether a path as the browser sent it names the
// script that all of an app's addresses lead to, and something behind it: to
// most PHP frameworks /index.php/x is /x. A rewrite may lead there.
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
		return false // a host and a port (RFC 9110, section 9.3.6)
	}
	// An opaque URL ("http:private/x") goes to the app without a slash before it.
	return u.Opaque != "" || hasNeedlessEncoding(u.RawPath) || isAmbiguousPath(u.Path)
}

// isAmbiguousPath takes a path as matchers see it, decoded once. A path of
// ordinary ASCII names is scanned once, without an allocation.
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
			return true // a second decoding leads to another path
		}
	}
	return start < len(path) && isAmbiguousSegment(path[start:]) || !ascii && isAmbiguousText(path)
}

// isNameByte has the letters and digits, and what else stands for nothing but
// itself.
var isNameByte = func() (is [256]bool) {
	for c := range is {
		is[c] = isToken(string(rune(c)))
	}
	return is
}()

// isAmbiguousSegment finds segments that servers resolve or merge, and names
// that Windows takes for others: it ignores dots and spaces at the end, has
// short names, and names the streams of a file after a colon.
func isAmbiguousSegment(s string) bool {
	if s == "" || s[0] == ' ' || s[len(s)-1] == ' ' || s[len(s)-1] == '.' {
		return true
	}
	if colon := strings.IndexByte(s, ':'); colon >= 0 && strings.Contains(s[colon:], ":$") {
		return true
	}
	return isShortName(s)
}

// isShortName reports whether a name has the form of an 8.3 alias, such as
// PRIVAT~1.TXT.
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

// isEncoded reports whether what follows a percent sign completes an encoded
// character: two hexadecimal digits, or for IIS u and four of them.
func isEncoded(s string) bool {
	if s != "" && (s[0] == 'u' || s[0] == 'U') {
		return len(s) > 4 && isHex(s[1]) && isHex(s[2]) && isHex(s[3]) && isHex(s[4])
	}
	return len(s) > 1 && isHex(s[0]) && isHex(s[1])
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// hasNeedlessEncoding reports whether a path as it was sent encodes a slash, or
// a character that no client has to encode (RFC 3986, section 2.3). Some apps
// match a path before they decode it. The tilde is left out: older clients
// encode it.
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

// lookalikes are characters that Windows makes a slash or a back slash of where
// a code page has no better one, and that Unicode does not call compatible.
const lookalikes = "\u2044\u2215\u2216\u29f5\u29f8\u29f9\u00a5\u20a9"

// isAmbiguousText is for paths with other characters than ASCII: those that
// some servers drop, trim or turn into ASCII, bytes that are no UTF-8, and
// letters that have a second spelling in Unicode.
func isAmbiguousText(path string) bool {
	if !utf8.ValidString(path) || !norm.NFC.IsNormalString(strings.Map(withoutNukta, path)) || isCompatibleWithASCII(path) {
		return true
	}
	for i, c := range path {
		switch {
		case c < utf8.RuneSelf:
		case unicode.IsControl(c), unicode.IsSpace(c), strings.ContainsRune(lookalikes, c):
			return true
		case c == '\u200c' || c == '\u200d': // part of Persian and Indic words, and of emoji
			next := i + utf8.RuneLen(c)
			if path[i-1] < utf8.RuneSelf || next == len(path) || path[next] < utf8.RuneSelf {
				return true
			}
		case unicode.In(c, unicode.Variation_Selector, unicode.Other_Default_Ignorable_Code_Point):
			if path[i-1] < utf8.RuneSelf { // else part of an emoji or of an ideograph
				return true
			}
		case unicode.Is(unicode.Cf, c):
			return true
		}
	}
	return false
}

// withoutNukta makes a plain letter of an Indic one that is written with a dot.
// Unicode's normal form takes these apart, but keyboards and apps do not, so
// that both spellings are in everyday use.
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
// other ASCII characters than the path. The full-width punctuation of Chinese
// and Japanese titles is left out, as far as its ASCII form means nothing to a
// server. A colon does, before a dollar sign.
func isCompatibleWithASCII(path string) bool {
	compatible := norm.NFKC.String(path)
	return asciiIn(compatible) != asciiIn(path) || strings.Contains(compatible, ":$")
}

// asciiIn is the ASCII in a text but for plain punctuation.
func asciiIn(s string) string {
	return strings.Map(func(c rune) rune {
		if c >= utf8.RuneSelf || strings.ContainsRune("!(),:", c) {
			return -1
		}
		return c
	}, s)
}
