package handler

import (
	"strings"
	"sync"
	"time"
)

// logLimiter keeps one cause from filling the log.
type logLimiter struct {
	mu     sync.Mutex
	causes map[string]*loggedCause
}

type loggedCause struct {
	last       time.Time
	suppressed int // lines since then
}

// maxCauses bounds the causes that are told apart. Above it, errors of one kind count as
// one cause.
const maxCauses = 100

// allow reports whether a cause was not logged within the last minute.
func (p *logLimiter) allow(cause string) bool {
	_, ok := p.allowCause(cause, nil)
	return ok
}

// allowCause reports whether the log may have a line about an error of some kind: the
// first one in a minute with this text, apart from numbers, which may differ each time.
// It also returns the number of lines that were left out since the last one.
func (p *logLimiter) allowCause(kind string, err error) (suppressed int, ok bool) {
	if err == nil {
		return p.allowText(kind, "")
	}
	return p.allowText(kind, causeText(err))
}

// allowText is allowCause for a cause that is named exactly. Without a text, the kind is
// the cause.
func (p *logLimiter) allowText(kind, text string) (suppressed int, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.causes == nil {
		p.causes = map[string]*loggedCause{}
	}
	cause, now := p.causes[kind], time.Now()
	if text != "" {
		key := kind + " " + text
		if cause = p.causes[key]; cause == nil && p.makeRoom(now) {
			cause = &loggedCause{}
			p.causes[key] = cause
		}
	}
	if cause == nil {
		if cause = p.causes[kind]; cause == nil {
			cause = &loggedCause{}
			p.causes[kind] = cause
		}
	}
	if now.Sub(cause.last) < logInterval {
		cause.suppressed++
		return 0, false
	}
	suppressed = cause.suppressed
	cause.last, cause.suppressed = now, 0
	return suppressed, true
}

// makeRoom reports whether another cause may be remembered. It forgets old ones.
func (p *logLimiter) makeRoom(now time.Time) bool {
	if len(p.causes) < maxCauses {
		return true
	}
	for key, c := range p.causes {
		if now.Sub(c.last) >= logInterval {
			delete(p.causes, key)
		}
	}
	return len(p.causes) < maxCauses
}

// causeText returns the text of an error without its digits, which may be those of a port
// or a time.
func causeText(err error) string {
	const limit = 200
	text := err.Error()
	return strings.Map(func(c rune) rune {
		if c >= '0' && c <= '9' {
			return -1
		}
		return c
	}, text[:min(len(text), limit)])
}

// printable keeps text from outside from forging log lines. It cuts the text to 200
// bytes and replaces everything but printable ASCII.
func printable(s string) string {
	const limit = 200
	s = strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return '?'
		}
		return c
	}, s[:min(len(s), limit)])
	return s
}
