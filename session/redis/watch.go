package redis

import (
	"time"

	"github.com/redis/rueidis"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// retellAfter is how long an item is left alone that was read without being
// tracked; see untracked.
const retellAfter = time.Second

// Watch implements [session.SharedStore].
func (s *Store) Watch(changed func(ids []session.ID)) { s.changed.Store(&changed) }

// invalidated gets the pushes of the server, on the goroutine that reads the
// connection, and nil after a connection was lost. By then the client has
// dropped the copies concerned: pipe.handlePush and pipe._background do so
// first. Each node of a cluster has its connection, and a master that was
// switched from is closed, so that every way to lose track of copies ends
// here.
func (s *Store) invalidated(keys []rueidis.RedisMessage) {
	if keys == nil {
		s.indexed.forgetAll()
	}
	changed := s.changed.Load()
	if changed == nil {
		return
	}
	if keys == nil {
		(*changed)(nil)
		return
	}
	ids := make([]session.ID, 0, len(keys))
	for i := range keys {
		key, err := keys[i].ToString()
		if err != nil {
			continue
		}
		if id, ok := s.keys.id(key); ok {
			ids = append(ids, id)
		}
	}
	if len(ids) > 0 { // no IDs would mean all
		(*changed)(ids)
	}
}

// untracked is told of an item that was read, but is not kept, nor tracked by
// the server: so the client reads from the node that a key is just moving to.
// Nobody would learn of its next change. So it counts as changed a moment
// later; who still cares reads it again, by then from its new home.
func (s *Store) untracked(id session.ID) {
	time.AfterFunc(retellAfter, func() {
		if changed := s.changed.Load(); changed != nil {
			(*changed)([]session.ID{id})
		}
	})
}
