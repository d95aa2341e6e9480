package storetest

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/memory"
)

// data is the data that the processes of a shared store share. One lock makes every
// method one step.
type data struct {
	mu     sync.Mutex
	items  *memory.Store
	leases map[session.ID]session.Lease
	topics map[session.Topic]map[session.Holder]announcement

	processes []*process
	pushing   sync.WaitGroup

	announcementLife time.Duration
	dropLease        func(session.ID) // with mu held
}

type announcement struct {
	text []byte
	made time.Time
}

func newData(t *testing.T) *data {
	d := &data{
		items:            memory.New(),
		leases:           map[session.ID]session.Lease{},
		topics:           map[session.Topic]map[session.Holder]announcement{},
		announcementLife: time.Minute,
	}
	d.dropLease = func(id session.ID) { delete(d.leases, id) }
	t.Cleanup(func() {
		d.pushing.Wait()
		_ = d.items.Close()
	})
	return d
}

// process is a shared store as one process sees it. It keeps copies of the items that it
// has read, and is notified of their changes after a delay.
type process struct {
	*data
	changed func([]session.ID)
	copies  map[session.ID]session.Item
	tracked map[session.ID]bool // read since the last push
}

func (d *data) newProcess() *process {
	p := &process{data: d, changed: func([]session.ID) {},
		copies: map[session.ID]session.Item{}, tracked: map[session.ID]bool{}}
	d.processes = append(d.processes, p)
	return p
}

// push makes every process that has read the item drop its copy, after some time.
func (d *data) push(id session.ID) {
	for _, p := range d.processes {
		if !p.tracked[id] {
			continue
		}
		delete(p.tracked, id)
		d.pushing.Go(func() {
			d.mu.Lock()
			delete(p.copies, id)
			d.mu.Unlock()
			p.changed([]session.ID{id})
		})
	}
}

func (p *process) Watch(changed func([]session.ID)) { p.changed = changed }

func (p *process) View(ctx context.Context, id session.ID, f func(session.Item) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	item, err := p.copyOf(ctx, id)
	if err != nil {
		return err
	}
	return f(item)
}

func (p *process) copyOf(ctx context.Context, id session.ID) (session.Item, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if item, ok := p.copies[id]; ok && time.Now().Before(item.Expires) {
		return item, nil
	}
	item, err := p.read(ctx, id)
	if err == nil {
		p.copies[id], p.tracked[id] = item, true
	}
	return item, err
}

func (d *data) read(ctx context.Context, id session.ID) (item session.Item, err error) {
	err = d.items.View(ctx, id, func(i session.Item) error {
		item = i
		item.Value = bytes.Clone(i.Value)
		return nil
	})
	return item, err
}

func (d *data) ViewCurrent(ctx context.Context, id session.ID, f func(session.Item) error) error {
	return d.items.View(ctx, id, f)
}

// write runs one step, and pushes the item if the step succeeds.
func (d *data) write(id session.ID, step func() error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := step(); err != nil {
		return err
	}
	d.push(id)
	return nil
}

func (d *data) Create(ctx context.Context, id session.ID, item session.Item) error {
	return d.write(id, func() error {
		err := d.items.Create(ctx, id, item)
		if err == nil {
			d.dropLease(id) // of an item that has expired
		}
		return err
	})
}

func (d *data) Replace(ctx context.Context, id session.ID, item session.Item) error {
	return d.write(id, func() error { return d.items.Replace(ctx, id, item) })
}

func (d *data) Delete(ctx context.Context, id session.ID) error {
	return d.write(id, func() error {
		d.dropLease(id)
		return d.items.Delete(ctx, id)
	})
}

func (d *data) DeleteAt(ctx context.Context, id session.ID, version uint64, holder session.Holder) error {
	return d.write(id, func() error {
		item, err := d.read(ctx, id)
		switch {
		case errors.Is(err, session.ErrNotFound), err == nil && item.Version != version:
			return session.ErrConflict
		case err != nil:
			return err
		case holder != session.Holder{} && d.leases[id].Holder != holder:
			return session.ErrConflict
		}
		d.dropLease(id)
		return d.items.Delete(ctx, id)
	})
}

func (d *data) Tagged(ctx context.Context, tag session.Tag) ([]session.ID, error) {
	return d.items.Tagged(ctx, tag)
}

func (d *data) List(ctx context.Context, after session.ID, limit int) ([]session.ID, error) {
	return d.items.List(ctx, after, limit)
}

func (d *data) Labels(ctx context.Context, ids []session.ID) ([]session.Labelled, error) {
	return d.items.Labels(ctx, ids)
}

func (d *data) Acquire(ctx context.Context, id session.ID, version uint64, holder session.Holder, seen session.Lease) (session.Lease, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	item, err := d.read(ctx, id)
	if err != nil {
		return session.Lease{}, err
	}
	if item.Version != version {
		return session.Lease{}, session.ErrConflict
	}
	if lease, held := d.leases[id]; held && lease != seen {
		return lease, session.ErrLeased
	}
	d.leases[id] = session.Lease{Holder: holder}
	return d.leases[id], nil
}

func (d *data) Beat(ctx context.Context, id session.ID, lease session.Lease) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, err := d.read(ctx, id)
	switch old := d.leases[id]; {
	case errors.Is(err, session.ErrNotFound), err == nil && old.Holder != lease.Holder:
		return session.ErrConflict
	case err != nil:
		return err
	case lease.Beat > old.Beat:
		d.leases[id] = lease
	}
	return nil
}

func (d *data) Release(ctx context.Context, id session.ID, holder session.Holder) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if d.leases[id].Holder == holder {
		delete(d.leases, id)
	}
	return nil
}

func (d *data) Announce(ctx context.Context, topic session.Topic, from session.Holder, text []byte) ([][]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if d.topics[topic] == nil {
		d.topics[topic] = map[session.Holder]announcement{}
	}
	d.topics[topic][from] = announcement{text: bytes.Clone(text), made: time.Now()}
	var all [][]byte
	for _, a := range d.topics[topic] {
		if time.Since(a.made) <= d.announcementLife {
			all = append(all, bytes.Clone(a.text))
		}
	}
	return all, nil
}

var _ session.SharedStore = (*process)(nil)
