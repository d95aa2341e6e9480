package caddymodule

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

const (
	// keyLookEvery is how often the files with keys are read again.
	keyLookEvery = 10 * time.Second
	// keySettle: a change counts when it is still the same after so long. The
	// first lines of a file that is being written may be a list of keys too, and
	// taking it over would end the sessions of those that follow.
	keySettle = time.Second
)

// keyWatch takes keys over when their files change.
type keyWatch struct {
	settings []string
	site     *seal.Site
	logger   *zap.Logger
	// seen is the fingerprint of the last reading that was taken over or refused.
	seen [sha256.Size]byte
}

func newKeyWatch(settings, texts []string, site *seal.Site, logger *zap.Logger) *keyWatch {
	return &keyWatch{settings: settings, site: site, logger: logger, seen: fingerprint(texts)}
}

// fingerprint tells readings apart. What could not be read is empty.
func fingerprint(texts []string) [sha256.Size]byte {
	return sha256.Sum256(fmt.Appendf(nil, "%q", texts))
}

// run watches until ctx ends.
func (w *keyWatch) run(ctx context.Context) {
	for sleep(ctx, keyLookEvery) {
		w.look(ctx)
	}
}

// sleep reports whether ctx has not ended meanwhile.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// look takes over what has changed since the last time. What is no list of keys
// is refused, and the keys before it stay.
func (w *keyWatch) look(ctx context.Context) {
	_, found, _ := w.read()
	if found == w.seen || !sleep(ctx, keySettle) {
		return
	}
	ring, again, err := w.read()
	if again != found {
		return // still being written
	}
	w.seen = found
	if err != nil {
		w.logger.Error("keys have changed and cannot be used: those before stay until this is put right, and a restart would fail", zap.Error(err))
		return
	}
	w.site.SetKeys(ring)
	w.logger.Info("keys have changed", zap.Strings("key_ids", ring.IDs()))
}

// read returns the keys as they are now, and a fingerprint of what was read.
func (w *keyWatch) read() (*seal.KeyRing, [sha256.Size]byte, error) {
	e := newExpander()
	texts := e.texts("key", w.settings)
	var ring *seal.KeyRing
	err := e.err
	if err == nil {
		ring, err = parseKeys(texts)
	}
	return ring, fingerprint(texts), err
}

// keyObserver logs and counts what is found out about the keys of other
// instances.
func keyObserver(logger *zap.Logger) func(seal.KeyEvent) {
	return func(e seal.KeyEvent) {
		ids := zap.Strings("key_ids", e.Keys)
		switch e.Kind {
		case seal.KeySeals:
			logger.Info("sessions are sealed with this key now: all instances have it", ids)
		case seal.KeysMissing:
			foreignKeys.WithLabelValues().Inc()
			logger.Error("other instances have keys that this one lacks: it cannot open what is sealed with them. "+
				"Give all instances the same keys (`caddy oauth-session key-id` tells which is which)", ids)
		case seal.KeysApart:
			foreignKeys.WithLabelValues().Inc()
			logger.Error("another instance has none of this one's keys: neither can open the other's sessions. "+
				"Give all instances the same keys (`caddy oauth-session key-id` tells which is which)", ids)
		case seal.KeysUnannounced:
			logger.Warn("the store could not be asked for the keys of other instances: what was agreed last stays", zap.Error(e.Err))
		case seal.KeysUnreadable:
			logger.Warn("announcements of keys in the store were altered, or are of a later release: they do not count, and an instance whose "+
				"announcement it is may be unable to open what is sealed here", zap.Error(e.Err))
		}
	}
}

// keyWork is what goes on about the keys of one handler besides requests. It
// is started apart from Provision: `caddy validate` provisions, and must reach
// for no store.
type keyWork struct {
	work    []func(context.Context)
	cancel  context.CancelFunc
	running sync.WaitGroup
}

func (k *keyWork) add(f func(context.Context)) { k.work = append(k.work, f) }

func (k *keyWork) start() {
	ctx, cancel := context.WithCancel(context.Background())
	k.cancel = cancel
	for _, f := range k.work {
		k.running.Go(func() { f(ctx) })
	}
}

// stop ends the work and waits for that, if it was started.
func (k *keyWork) stop() {
	if k.cancel != nil {
		k.cancel()
		k.running.Wait()
	}
}
