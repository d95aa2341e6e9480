package caddymodule

import (
	"context"
	"errors"
	"os"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/oauth-session/caddy-oauth-session/oauth"
)

const (
	// credentialCheckEvery is how often the files with credentials are checked, in
	// addition to each use.
	credentialCheckEvery = 10 * time.Second
	// credentialLogEvery is the least time between two log lines about files that cannot
	// be used.
	credentialLogEvery = time.Minute
)

// watchCredentials refuses credentials that cannot be used, and adds a task that reports
// later changes. An assertion that has expired is only reported: its program may renew
// it at any time, and a start must not depend on that.
func (h *Handler) watchCredentials(client *oauth.Client, tasks *keyTasks) error {
	// The client may be that of the former configuration.
	if err := client.CheckCredentials(); err != nil && !errors.Is(err, oauth.ErrAssertionExpired) {
		return err
	}
	if h.ClientKey != "" {
		warnIfExposed(newExpander().text("client_key", h.ClientKey), h.logger)
	}
	if client.UsesFiles() {
		w := &credentialWatch{client: client, site: h.label, logger: h.logger, keys: client.KeyIDs()}
		tasks.add(w.run)
	}
	return nil
}

// warnIfExposed warns about a private key that every user of the host can read.
func warnIfExposed(file string, logger *zap.Logger) {
	if info, err := os.Stat(file); err == nil && info.Mode().Perm()&0o004 != 0 {
		logger.Warn("client_key can be read by every user of this host; allow only Caddy to read it (chmod 600)", zap.String("file", file))
	}
}

// credentialWatch reports changes of the files with a client's credentials. The client
// itself reads the files for each use; the watch finds a bad one before a request does.
type credentialWatch struct {
	client *oauth.Client
	logger *zap.Logger
	site   string    // in metrics
	keys   []string  // IDs of the keys in use
	logged time.Time // of the last line about a file that cannot be used; zero: usable
}

// run checks the files until ctx ends.
func (w *credentialWatch) run(ctx context.Context) {
	for {
		w.check(time.Now())
		if !sleep(ctx, credentialCheckEvery) {
			return
		}
	}
}

func (w *credentialWatch) check(now time.Time) {
	err := w.client.CheckCredentials()
	switch {
	case err == nil && !w.logged.IsZero():
		w.logged = time.Time{}
		w.logger.Info("the credentials of the client can be used again")
	case err != nil && now.Sub(w.logged) >= credentialLogEvery:
		w.logged = now
		badCredentials.WithLabelValues(w.site).Inc()
		w.logger.Error("the credentials of the client cannot be used; former ones stay in use while they are valid, and a restart may fail until this is corrected", zap.Error(err))
	}
	if keys := w.client.KeyIDs(); !slices.Equal(keys, w.keys) {
		w.keys = keys
		w.logger.Info("client keys replaced; the first one signs", zap.Strings("key_ids", keys))
	}
}
