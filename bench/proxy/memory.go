package main

import (
	"context"
	"fmt"

	"github.com/oauth-session/caddy-oauth-session/bench/internal/figures"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/fleet"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/load"
	"github.com/oauth-session/caddy-oauth-session/bench/internal/machine"
)

// sizes uses every session once and looks at the memory of the subjects.
func (b *bench) sizes(ctx context.Context) ([]figures.Size, error) {
	plain, err := b.visited(ctx, b.Subject(fleet.Plain))
	if err != nil {
		return nil, err
	}
	var sizes []figures.Size
	for _, s := range b.Subjects {
		if !s.LogsIn() || s.IsPeer() {
			continue
		}
		m, err := b.visited(ctx, s)
		if err != nil {
			return nil, err
		}
		sizes = append(sizes, figures.Size{
			Subject: s.Name, Sessions: b.Sessions, Started: s.Started, StoreBytes: b.StoreBytes[s.Name],
			Anonymous: m.Anonymous - plain.Anonymous, File: m.File - plain.File, Live: m.live - plain.live,
		})
	}
	return sizes, nil
}

// memory is what a subject holds.
type memory struct {
	machine.Memory
	live int64 // bytes of the heap in use
}

// visited returns a subject's memory after as many requests as there are
// sessions.
func (b *bench) visited(ctx context.Context, s *fleet.Subject) (memory, error) {
	// Without sessions a few requests do for all: they leave nothing behind.
	const enough = 10_000
	t := target(figures.Cell{Size: 200}, s)
	if !s.LogsIn() {
		t.Cookies = make([]string, min(b.Sessions, enough))
	}
	if _, err := load.Once(ctx, t, 64, 0); err != nil {
		return memory{}, fmt.Errorf("%s, each session once: %w", s.Name, err)
	}
	resident, err := machine.MemoryOf(s.PID())
	if err != nil {
		return memory{}, err
	}
	live, err := s.Live(ctx)
	progress(fmt.Sprintf("%s: each of %d sessions was used once", s.Name, b.Sessions))
	return memory{resident, live}, err
}
