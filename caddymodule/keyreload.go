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
	// keyReloadEvery is how often the reloader reads the files with keys.
	keyReloadEvery = 10 * time.Second
	// keySettle is how long a change must stay the same before it takes effect. The first
	// lines of a partly written file may be a valid list of keys, too. With that list, the
	// sessions of the missing keys would end.
	keySettle = time.Second
)

// keyReloader replaces a site's keys when their files change.
type keyReloader struct {
	settings []string
	site     *seal.Site
	logger   *zap.Logger
	// seen is the fingerprint of the keys that were last accepted or refused.
	seen [sha256.Size]byte
}

func newKeyReloader(settings, texts []string, site *seal.Site, logger *zap.Logger) *keyReloader {
	return &keyReloader{settings: settings, site: site, logger: logger, seen: fingerprint(texts)}
}

// fingerprint identifies the content of the files. An unreadable file counts as empty.
func fingerprint(texts []string) [sha256.Size]byte {
	return sha256.Sum256(fmt.Appendf(nil, "%q", texts))
}

// run reloads changed keys until ctx ends.
func (w *keyReloader) run(ctx context.Context) {
	for sleep(ctx, keyReloadEvery) {
		w.reloadIfChanged(ctx)
	}
}

// sleep waits for d. It returns false if ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// reloadIfChanged replaces the keys if their files have changed. If the new content is
// not a list of keys, it logs an error and keeps the former keys.
func (w *keyReloader) reloadIfChanged(ctx context.Context) {
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
		w.logger.Error("the changed keys cannot be used; the former keys stay in use, and a restart would fail until this is corrected", zap.Error(err))
		return
	}
	w.site.SetKeys(ring)
	w.logger.Info("keys replaced", zap.Strings("key_ids", ring.IDs()))
}

// read returns the current keys and their fingerprint.
func (w *keyReloader) read() (*seal.KeyRing, [sha256.Size]byte, error) {
	e := newExpander()
	texts := e.texts("key", w.settings)
	var ring *seal.KeyRing
	err := e.err
	if err == nil {
		ring, err = parseKeys(texts)
	}
	return ring, fingerprint(texts), err
}

// keyObserver logs and counts events about the keys of all instances.
func keyObserver(logger *zap.Logger, metrics siteMetrics) func(seal.KeyEvent) {
	return func(e seal.KeyEvent) {
		ids := zap.Strings("key_ids", e.Keys)
		switch e.Kind {
		case seal.KeySeals:
			logger.Info("this key seals sessions from now on; all instances have it", ids)
			metrics.sealsWith(e.Keys)
		case seal.KeysMissing:
			foreignKeys.WithLabelValues(metrics.site).Inc()
			logger.Error("other instances have keys that this one lacks, so it cannot open sessions sealed with them. "+
				"Give all instances the same keys (`caddy oauth-session key-id` prints their IDs)", ids)
		case seal.KeysApart:
			foreignKeys.WithLabelValues(metrics.site).Inc()
			logger.Error("another instance has none of the keys of this one, so neither can open the sessions of the other. "+
				"Give all instances the same keys (`caddy oauth-session key-id` prints their IDs)", ids)
		case seal.KeysUnannounced:
			logger.Warn("the store did not return the keys of other instances; the last agreement stays in force", zap.Error(e.Err))
		case seal.KeysUnreadable:
			logger.Warn("some announcements of keys in the store cannot be decoded and are ignored: they were altered, or a later release wrote them; "+
				"the instances that made them may be unable to open sessions sealed here", zap.Error(e.Err))
		}
	}
}

// keyTasks are the background tasks for the keys of all handlers of a configuration.
// App.Start starts them, and not Provision: `caddy validate` provisions too, and must not
// contact a store. They end together: each of them may wait a second for a store that
// does not answer.
type keyTasks struct {
	tasks   []func(context.Context)
	cancel  context.CancelFunc
	running sync.WaitGroup
}

func (k *keyTasks) add(f func(context.Context)) { k.tasks = append(k.tasks, f) }

func (k *keyTasks) start() {
	ctx, cancel := context.WithCancel(context.Background())
	k.cancel = cancel
	for _, f := range k.tasks {
		k.running.Go(func() { f(ctx) })
	}
}

// stop ends the tasks and waits for them, if they were started. It may be called
// repeatedly.
func (k *keyTasks) stop() {
	if k.cancel != nil {
		k.cancel()
		k.running.Wait()
	}
}
