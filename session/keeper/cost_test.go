package keeper

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// hotPath returns the steps of a request from its cookie to its session, each with the
// limit of its allocations. Their times would vary too much on a shared machine.
func hotPath(tb testing.TB) []step {
	ring, err := seal.NewKeyRing(seal.NewKey())
	if err != nil {
		tb.Fatal(err)
	}
	site := seal.NewSite(ring, "https://login.example.com", "app", "")
	vault := NewVault(newFakeStore())
	tb.Cleanup(func() { _ = vault.Close(context.Background()) })
	k := mustKeeper(Config{
		Vault: vault, Site: site, Refresher: noServer{}, IdleTimeout: 8 * time.Hour, MaxLifetime: 24 * time.Hour,
		RefreshTimeout: 10 * time.Second, DefaultTokenLifetime: 5 * time.Minute,
	})
	now := time.Now()
	secret, _, err := k.Create(tb.Context(), Identity{Subject: "alice", Claims: []byte(`{"email":"alice@example.com"}`)}, Tokens{
		AccessToken: string(make([]byte, 1138)), RefreshToken: "refresh", Obtained: now, Expires: now.Add(100 * time.Hour),
	})
	if err != nil {
		tb.Fatal(err)
	}
	id, cookie, ctx := site.Ref(secret).ID, secret.Cookie(), tb.Context()
	var item session.Item
	if err := vault.store.View(ctx, id, func(i session.Item) error { i.Value = bytes.Clone(i.Value); item = i; return nil }); err != nil {
		tb.Fatal(err)
	}
	s, err := k.Fresh(ctx, secret)
	if err != nil {
		tb.Fatal(err)
	}
	rec, err := openRecord(site, seal.Ref{ID: id, Secret: secret}, item)
	if err != nil {
		tb.Fatal(err)
	}
	return []step{
		{"cookie to secret", 0, func() bool { _, ok := seal.ParseSecret(cookie); return ok }},
		{"secret to ID", 0, func() bool { return site.Ref(secret).ID == id }},
		{"open and decode", 45, func() bool { _, err := openHot(site, seal.Ref{ID: id, Secret: secret}, item); return err == nil }},
		{"seal an opened record", 20, func() bool {
			_, err := sealRecord(site, seal.Ref{ID: id, Secret: secret}, rec, item.Version+1)
			return err == nil
		}},
		{"session", 0, func() bool { _, err := k.Fresh(ctx, secret); return err == nil }},
		{"session without a cache entry", 52, func() bool {
			vault.cache.forget(id)
			_, err := k.Fresh(ctx, secret)
			return err == nil
		}},
		{"attach and detach", 5, func() bool {
			var a Attachment
			attached := k.Attach(ctx, s, &a)
			a.Detach()
			return attached.Err() != nil
		}},
	}
}

type step struct {
	name        string
	allocations float64 // at most
	do          func() bool
}

func BenchmarkHotPath(b *testing.B) {
	for _, s := range hotPath(b) {
		b.Run(s.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !s.do() {
					b.Fatal("the step failed")
				}
			}
		})
	}
}

func TestHotPathStaysWithinItsAllocations(t *testing.T) {
	for _, s := range hotPath(t) {
		t.Run(s.name, func(t *testing.T) {
			got := testing.AllocsPerRun(1000, func() {
				if !s.do() {
					t.Fatal("the step failed")
				}
			})
			if got > s.allocations {
				t.Errorf("got %v allocations, want %v at most", got, s.allocations)
			}
		})
	}
}
