package caddymodule

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/bolt"
	"github.com/oauth-session/caddy-oauth-session/session/memory"
)

func init() {
	caddy.RegisterModule(BoltStore{})
	caddy.RegisterModule(MemoryStore{})
}

// StoreModule is the interface of modules in the namespace
// http.handlers.oauth_session.stores.
type StoreModule interface {
	// StoreID identifies the store. Two configurations of the same store return the same
	// ID, and share it.
	StoreID() string
	// Shared reports whether several processes use the store at the same time. The option
	// key is then required.
	Shared() bool
	// OpenStore opens the store. The App calls it when the configuration starts, and again
	// after a failure. A store that is an io.Closer is closed when the last configuration
	// that uses it is gone.
	OpenStore() (session.Store, error)
}

// BoltStore keeps sessions in a file. One Caddy process at a time can use the file.
type BoltStore struct {
	// The file. Default: `oauth_session/sessions.db` in Caddy's data directory.
	Path string `json:"path,omitempty"`

	path   string
	logger *zap.Logger
}

// CaddyModule returns the Caddy module information.
func (BoltStore) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  storesNamespace + "bolt",
		New: func() caddy.Module { return new(BoltStore) },
	}
}

const storesNamespace = "http.handlers.oauth_session.stores."

// Provision resolves the path of the file. It does not open the file.
func (s *BoltStore) Provision(ctx caddy.Context) error {
	s.logger = ctx.Logger()
	e := newExpander()
	s.path = e.text("store path", s.Path)
	if e.err != nil {
		return e.err
	}
	if s.path == "" {
		s.path = dataFile("sessions.db")
	}
	var err error
	if s.path, err = realPath(s.path); err != nil {
		return fmt.Errorf("store path: %w", err)
	}
	s.path = pathInUse(s.path)
	return nil
}

// boltIDPrefix precedes the path in a StoreID.
const boltIDPrefix = "bolt:"

// StoreID implements StoreModule.
func (s *BoltStore) StoreID() string { return boltIDPrefix + s.path }

// Shared implements StoreModule.
func (*BoltStore) Shared() bool { return false }

// OpenStore implements StoreModule. A damaged file cannot be repaired, so OpenStore moves
// it aside and begins with an empty one: the other sites must start.
func (s *BoltStore) OpenStore() (session.Store, error) {
	store, err := bolt.Open(s.path)
	if !errors.Is(err, bolt.ErrDamaged) {
		return store, err
	}
	movedTo, moveErr := bolt.SetAside(s.path)
	if moveErr != nil {
		return nil, errors.Join(err, moveErr)
	}
	s.logger.Error("the file of the session store was damaged: it was moved aside, and an empty one takes its place. All sessions in it have ended, and their users log in again. "+
		"Look for the cause (a full or failing disk, a restored or copied file), and delete the moved file when it is not needed any more",
		zap.String("path", s.path), zap.String("moved_to", movedTo), zap.Error(err))
	return bolt.Open(s.path)
}

// CheckStore returns an error if the file cannot be used. It changes nothing, creates no
// file, and reports none that a running Caddy uses.
func (s *BoltStore) CheckStore() error {
	err := bolt.Check(s.path)
	if errors.Is(err, bolt.ErrInUse) {
		return nil
	}
	return err
}

// MemoryStore keeps sessions in memory. They survive a reload, and are lost when Caddy
// stops.
type MemoryStore struct{}

// CaddyModule returns the Caddy module information.
func (MemoryStore) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  storesNamespace + "memory",
		New: func() caddy.Module { return new(MemoryStore) },
	}
}

// StoreID implements StoreModule.
func (*MemoryStore) StoreID() string { return "memory" }

// Shared implements StoreModule.
func (*MemoryStore) Shared() bool { return false }

// OpenStore implements StoreModule.
func (*MemoryStore) OpenStore() (session.Store, error) { return memory.New(), nil }

// dataFile returns the path of a file in the module's part of Caddy's data directory.
func dataFile(name string) string { return filepath.Join(caddy.AppDataDir(), "oauth_session", name) }

// Interface guards
var (
	_ caddy.Provisioner = (*BoltStore)(nil)
	_ StoreModule       = (*BoltStore)(nil)
	_ StoreModule       = (*MemoryStore)(nil)
	_ io.Closer         = (*bolt.Store)(nil)
	_ io.Closer         = (*memory.Store)(nil)
)
