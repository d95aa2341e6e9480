package redis

import (
	"time"

	"github.com/redis/rueidis"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// untrackedDelay is the time after which an untracked item counts as changed; see
// notifyUntracked.
const untrackedDelay = time.Second

// Watch implements [session.SharedStore].
func (s *Store) Watch(changed func(ids []session.ID)) { s.changed.Store(&changed) }

// invalidated receives the pushes of the server, on the goroutine that reads the
// connection, and nil after a connection was lost. The client has dropped the copies
// before: see its pipe.handlePush and pipe._background. Each node of a cluster has its
// own connection, and after a failover the client closes that to the old master. So
// every loss of tracking calls this function.
func (s *Store) invalidated(keys []rueidis.RedisMessage) {
	if keys == nil {
		s.indexes.forgetAll()
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
	if len(ids) > 0 { // nil would mean all items
		(*changed)(ids)
	}
}

// notifyUntracked reports an item as changed after a delay. The client neither keeps a
// copy of this item nor does the server track it, as happens while its key moves to
// another node of a cluster: no push would report its next change. A reader that still
// needs the item reads it again, then from the new node.
func (s *Store) notifyUntracked(id session.ID) {
	time.AfterFunc(untrackedDelay, func() {
		if changed := s.changed.Load(); changed != nil {
			(*changed)([]session.ID{id})
		}
	})
}
