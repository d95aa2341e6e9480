package handler

import (
	"net/url"
	"path"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/text/unicode/norm"
)

// readings has the changes that servers make to a path before they look it up. A
// chain of servers applies several.
var readings = map[string]func(string) string{
	"decode":          decodeLeniently,
	"decode, IIS":     decodeUnicode,
	"parameters":      segments(func(s string) string { return cut(s, ";") }),
	"back slashes":    strings.NewReplacer(`\`, "/").Replace,
	"dots":            func(p string) string { return path.Clean("/" + p) },
	"URL reference":   authority,
	"end at ?":        func(p string) string { return cut(p, "?") },
	"end at #":        func(p string) string { return cut(p, "#") },
	"end at NUL":      func(p string) string { return cut(p, "\x00") },
	"drop controls":   dropControls,
	"Windows names":   segments(func(s string) string { return strings.TrimRight(s, ". ") }),
	"Windows streams": segments(func(s string) string { return cut(s, ":$") }),
	"trim":            strings.TrimSpace,
	"compatible":      norm.NFKC.String,
	"best fit":        strings.NewReplacer("\u2044", "/", "\u2215", "/", "\u2216", `\`, "\u00ad", "-", "\u200b", "").Replace,
	"overlong":        strings.NewReplacer("\xc0\xaf", "/", "\xc0\xae", ".", "\xc1\x9c", `\`, "\xe0\x80\xaf", "/").Replace,
}

func cut(s, at string) string {
	before, _, _ := strings.Cut(s, at)
	return before
}

func segments(read func(string) string) func(string) string {
	return func(p string) string {
		all := strings.Split(p, "/")
		for i, s := range all {
			if s != "." && s != ".." {
				all[i] = read(s)
			}
		}
		return strings.Join(all, "/")
	}
}

// authority reads //host/path as a reference to another host, as URL parsers do.
func authority(p string) string {
	if rest, ok := strings.CutPrefix(p, "//"); ok {
		_, after, _ := strings.Cut(rest, "/")
		return "/" + after
	}
	return p
}

func dropControls(p string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return -1
		}
		return c
	}, p)
}

var (
	encoded        = regexp.MustCompile(`%[0-9a-fA-F]{2}`)
	encodedUnicode = regexp.MustCompile(`%[uU][0-9a-fA-F]{4}`)
)

func decodeLeniently(p string) string {
	return encoded.ReplaceAllStringFunc(p, func(s string) string {
		c, _ := strconv.ParseUint(s[1:], 16, 8)
		return string([]byte{byte(c)})
	})
}

func decodeUnicode(p string) string {
	return encodedUnicode.ReplaceAllStringFunc(p, func(s string) string {
		c, _ := strconv.ParseUint(s[2:], 16, 16)
		return string(rune(c))
	})
}

// everyReading calls seen with each path that up to steps changes produce.
func everyReading(p string, steps int, done map[string]int, seen func(string)) {
	if left, ok := done[p]; ok && left >= steps {
		return
	}
	done[p] = steps
	seen(strings.ToLower(path.Clean("/"+p)) + "/")
	if steps == 0 {
		return
	}
	for _, read := range readings {
		if next := read(p); next != p {
			everyReading(next, steps-1, done, seen)
		}
	}
}

// FuzzAmbiguousPath: a path that needs no session has the same meaning to every
// server. No reading leads below /private unless the matcher sees it there, and
// none leads out of /static.
func FuzzAmbiguousPath(f *testing.F) {
	for _, target := range append(ambiguous, ordinary...) {
		f.Add(target)
		f.Add(strings.NewReplacer("static", "public", "admin", "private/x").Replace(target))
	}
	for _, target := range []string{"/private;/x", "/.;/private/x", "/%5cprivate/x", "/private%252fx", "/%70rivate/x", "/%2570rivate/x", "/static;.css/..;/private/x", "/private%2/x"} {
		f.Add(target)
	}
	f.Fuzz(func(t *testing.T, target string) {
		u, err := url.ParseRequestURI(target)
		if err != nil || u.Host != "" || len(target) > 200 || isAmbiguous("GET", u) {
			return
		}
		matched := strings.ToLower(path.Clean(u.Path)) + "/"
		everyReading(u.EscapedPath(), 4, map[string]int{}, func(reading string) {
			if strings.HasPrefix(reading, "/private/") && !strings.HasPrefix(matched, "/private/") {
				t.Fatalf("%q: got reading %q, want the path of the matcher", target, reading)
			}
			if strings.HasPrefix(matched, "/static/") && !strings.HasPrefix(reading, "/static/") {
				t.Fatalf("%q: got reading %q, want the path of the matcher", target, reading)
			}
		})
	})
}
