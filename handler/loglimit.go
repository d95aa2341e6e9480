package handler

import (
	"strings"
	"sync"
	"time"
)

// logLimiter keeps one cause from filling the log. The causes are a short fixed
// list, so the map stays small.
type logLimiter struct {
	mu   sync.Mutex
	last map[string]time.Time
}

// allow reports whether a cause was not logged within the last minute.
func (p *logLimiter) allow(cause string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if last, ok := p.last[cause]; ok && now.Sub(last) < logInterval {
		return false
	}
	if p.last == nil {
		p.last = map[string]time.Time{}
	}
	p.last[cause] = now
	return true
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
