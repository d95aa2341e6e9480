package session

import (
	"context"
	"time"
)

// touch writes down that a session is used. A failure is not worth an error:
// the next request tries again.
func (k *Keeper) touch(id ID, secret Secret) {
	k.vault.touch(id, func() {
		now := time.Now()
		if e := k.vault.overlay.get(id); e != nil {
			if e.rec != nil {
				rec := *e.rec
				rec.seen = now
				k.vault.overlay.replace(id, e, &overlayEntry{rec: &rec, secret: e.secret})
			}
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
		defer cancel()
		rec, err := k.readStored(ctx, id, secret)
		if err != nil || now.Sub(rec.seen) < k.touchEvery {
			return
		}
		rec.seen = now
		// No loop on a conflict: whoever was faster used the session too.
		if item, err := k.item(secret, id, rec); err == nil {
			_ = k.vault.store.Replace(ctx, id, item)
		}
	})
}
