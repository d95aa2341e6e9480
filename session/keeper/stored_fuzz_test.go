package keeper

import (
	"context"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// noServer is the Refresher of an authorization server that cannot be reached.
type noServer struct{}

func (noServer) Refresh(context.Context, string, func() error) Answer {
	return Answer{Outcome: Unavailable, Err: errors.New("no connection")}
}

func (noServer) Identify(_ context.Context, current Identity, _ Tokens) (Identity, error) {
	return current, nil
}

func (noServer) Discard(context.Context, Tokens) {}

// FuzzStoredSession: whatever record another release or a defective one has sealed with
// these keys, a session that the keeper serves has not ended and its token is usable.
func FuzzStoredSession(f *testing.F) {
	now := time.Now()
	rec := fullRecord()
	rec.created, rec.lastUsed, rec.end = now, now, now.Add(time.Hour)
	rec.token.obtained, rec.token.refreshAt = now, now.Add(time.Hour)
	rec.token.expires, rec.token.usableUntil = now.Add(time.Hour), now.Add(time.Hour)
	f.Add(rec.hot.encode(), rec.cold.encode())
	expired := *rec
	expired.token.usableUntil = now.Add(-time.Second)
	f.Add(expired.hot.encode(), rec.cold.encode())
	expired = *rec
	expired.lastUsed = time.UnixMilli(1 << 62)
	expired.end = time.UnixMilli(-1 << 62)
	f.Add(expired.hot.encode(), []byte{})
	expired.end = time.UnixMilli(1 << 62)
	expired.token.usableUntil = time.UnixMilli(1<<63 - 1)
	f.Add(expired.hot.encode(), []byte{fieldRefreshToken, 200})
	f.Add([]byte{}, []byte{})
	f.Add([]byte{fieldEnd, 1, 2}, binary.AppendUvarint(nil, 1<<63))

	site, secret := testSite(f, testKey(1)), testSecret(1)
	id := site.Ref(secret).ID
	f.Fuzz(func(t *testing.T, hotPart, coldPart []byte) {
		value, err := site.Seal(seal.Ref{ID: id, Secret: secret}, nil, 1, hotPart, coldPart)
		if err != nil {
			return // too large for a record
		}
		store := newFakeStore()
		store.put(id, session.Item{Version: 1, Expires: time.Now().Add(time.Hour), Value: value})
		vault := NewVault(store)
		keeper := mustKeeper(Config{
			Vault: vault, Site: site, Refresher: noServer{},
			IdleTimeout: time.Hour, MaxLifetime: 2 * time.Hour, RefreshTimeout: time.Second, DefaultTokenLifetime: time.Minute,
			Observe: func(Event) {},
		})
		stored, ok := decodeHot(hotPart)
		check := func(call string, s *Session, err error) {
			switch now := time.Now(); {
			case err == nil && !ok:
				t.Errorf("%s: got %+v for a damaged record, want an error", call, s)
			case err == nil && (!now.Before(s.End) || !now.Before(s.IdleEnd.Add(keeper.useInterval))):
				t.Errorf("%s: got a session that ended at %v, or was idle at %v", call, s.End, s.IdleEnd)
			case err == nil && (s.AccessToken != stored.token.value || s.Subject != stored.subject):
				t.Errorf("%s: got %+v, want token %q and subject %q", call, s, stored.token.value, stored.subject)
			case err == nil && call == "Fresh" && !now.Before(stored.token.usableUntil):
				t.Errorf("%s: got a token that was usable until %v", call, stored.token.usableUntil)
			}
		}
		s, err := keeper.Peek(t.Context(), secret)
		check("Peek", s, err)
		s, err = keeper.Fresh(t.Context(), secret)
		check("Fresh", s, err)
		if err := vault.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
