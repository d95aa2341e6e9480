package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/oauth-session/caddy-oauth-session/bench/internal/machine"
	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/bolt"
	"github.com/oauth-session/caddy-oauth-session/session/keeper"
	"github.com/oauth-session/caddy-oauth-session/session/redis"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// hello is what a worker is told first.
type hello struct {
	Bolt    string // path of the file, or
	Redis   string // URL of the server
	Key     string // that seals the sessions
	Secrets string // path of the file with the sessions' secrets
}

// step is one thing that a worker is told to do.
type step struct {
	Do      string
	N       int     // how often, or
	Seconds float64 // for how long
	Rate    int     // how often a second; 0: as fast as it goes
	IDToken bool    // refreshes bring one
}

// outcome is what came of a step.
type outcome struct {
	Do      string
	Seconds float64
	Done    int
	// Tenths are how many a second were done in each tenth of a fill.
	Tenths []float64
	Reads  waits
	Writes waits

	Memory machine.Memory // at the end of the step
	Most   int64          // anonymous memory at any time of the step, in bytes
	Live   int64          // heap that is in use, in bytes, of the step that asks for it
	Disk   int64          // read from the disk, in bytes
	Error  string
}

// work does steps as they are read, until there are no more.
func work(in io.Reader, out io.Writer) error {
	steps, outcomes := json.NewDecoder(in), json.NewEncoder(out)
	var h hello
	if err := steps.Decode(&h); err != nil {
		return fmt.Errorf("reading what to do: %w", err)
	}
	w, err := newWorker(h)
	if err != nil {
		return err
	}
	for {
		var s step
		if err := steps.Decode(&s); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("reading what to do: %w", err)
		}
		o, err := w.do(s)
		if err != nil {
			o.Error = err.Error()
		}
		if err := outcomes.Encode(o); err != nil {
			return fmt.Errorf("telling what was done: %w", err)
		}
	}
}

// worker is the process that has the store open.
type worker struct {
	hello
	key     seal.Key
	secrets secrets
	server  *server // the authorization server
	store   session.Store
	vault   *keeper.Vault
	site    *seal.Site
	keeper  *keeper.Keeper
	landed  sync.Map // session.ID to a channel that is closed when its refresh is written
	close   func() error
	next    int // session to be refreshed
}

func newWorker(h hello) (*worker, error) {
	key, err := seal.ParseKey(h.Key)
	if err != nil {
		return nil, fmt.Errorf("reading the key: %w", err)
	}
	w := &worker{hello: h, key: key, server: &server{}}
	w.secrets, err = openSecrets(h.Secrets)
	return w, err
}

func (w *worker) do(s step) (o outcome, err error) {
	o.Do = s.Do
	stop := watchMemory(&o.Most)
	read := readBytes()
	begun := time.Now()
	switch s.Do {
	case "begin": // tells how much memory the process has before anything
	case "open":
		err = w.open()
	case "live":
		runtime.GC()
		runtime.GC() // what pools held through the first
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		o.Live = int64(m.HeapAlloc)
	case "close":
		err = errors.Join(w.vault.Close(context.Background()), w.close())
	case "fill":
		o.Tenths, err = w.fill(s.N)
		o.Done = s.N
	case "expired":
		err = w.fillExpired(s.N)
		o.Done = s.N
	case "login":
		o.Writes, err = w.login(s)
	case "peek":
		o.Done = s.N
		err = w.peek(s.N)
	case "request":
		o.Reads, err = w.request(s)
	case "refresh":
		o.Writes, err = w.refresh(s)
	case "mixed":
		o.Reads, o.Writes, err = w.mixed(s, func() bool { return time.Since(begun).Seconds() >= s.Seconds })
	case "sweep":
		o.Done, o.Reads, o.Writes, err = w.sweep(s)
	default:
		err = errors.New("what is that?")
	}
	o.Seconds = time.Since(begun).Seconds()
	o.Disk = readBytes() - read
	if o.Done == 0 {
		o.Done = o.Reads.N + o.Writes.N
	}
	stop()
	if err != nil {
		return o, fmt.Errorf("%s: %w", s.Do, err)
	}
	o.Memory, err = machine.MemoryOf(os.Getpid())
	return o, err
}

// open opens the store and reads the first session, if there is one.
func (w *worker) open() error {
	if w.Bolt != "" {
		store, err := bolt.Open(w.Bolt)
		if err != nil {
			return err
		}
		w.store, w.close = store, store.Close
	} else {
		store, err := redis.Open(redis.Config{URLs: []string{w.Redis}})
		if err != nil {
			return err
		}
		w.store, w.close = store, store.Close
	}
	ring, err := seal.NewKeyRing(w.key)
	if err != nil {
		return err
	}
	w.vault = keeper.NewVault(w.store)
	w.site = seal.NewSite(ring, "https://login.example.com", "app", "")
	w.keeper, err = keeper.New(keeper.Config{
		Vault: w.vault, Site: w.site, Refresher: w.server, Observe: w.observe,
		IdleTimeout: 8 * time.Hour, MaxLifetime: 24 * time.Hour, RefreshTimeout: 10 * time.Second, DefaultTokenLifetime: 10 * time.Minute,
	})
	if err != nil {
		return err
	}
	if w.secrets.n() == 0 {
		return nil
	}
	secret, err := w.secrets.get(0)
	if err == nil {
		_, err = w.keeper.Fresh(context.Background(), secret)
	}
	return err
}
