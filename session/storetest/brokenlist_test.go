package storetest

import (
	"bytes"
	"context"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
)

type (
	listFunc   = func(ctx context.Context, after session.ID, limit int) ([]session.ID, error)
	labelsFunc = func(ctx context.Context, ids []session.ID) ([]session.Labelled, error)
)

func (b *broken) List(ctx context.Context, after session.ID, limit int) ([]session.ID, error) {
	if b.list != nil {
		return b.list(ctx, after, limit)
	}
	return b.Store.List(ctx, after, limit)
}

func (b *broken) Labels(ctx context.Context, ids []session.ID) ([]session.Labelled, error) {
	if b.labels != nil {
		return b.labels(ctx, ids)
	}
	return b.Store.Labels(ctx, ids)
}

// changePage changes the results of List.
func changePage(b *broken, change func(after session.ID, limit int, ids []session.ID) []session.ID) {
	b.list = func(ctx context.Context, after session.ID, limit int) ([]session.ID, error) {
		ids, err := b.Store.List(ctx, after, limit)
		return change(after, limit, ids), err
	}
}

// changeLabels changes the results of Labels.
func changeLabels(b *broken, change func(ids []session.ID, found []session.Labelled) []session.Labelled) {
	b.labels = func(ctx context.Context, ids []session.ID) ([]session.Labelled, error) {
		found, err := b.Store.Labels(ctx, ids)
		return change(ids, found), err
	}
}

func createDropsLabel(b *broken) {
	changeCreated(b, func(_ session.ID, item *session.Item) { item.Label = nil })
}

func replaceDropsLabel(b *broken) {
	changeReplaced(b, func(_ session.ID, item *session.Item) { item.Label = nil })
}

func listsBackwards(b *broken) {
	changePage(b, func(_ session.ID, _ int, ids []session.ID) []session.ID { slices.Reverse(ids); return ids })
}

// listsFrom includes the ID after which the page begins.
func listsFrom(b *broken) {
	changePage(b, func(after session.ID, _ int, ids []session.ID) []session.ID {
		if found, _ := b.Labels(context.Background(), []session.ID{after}); len(found) > 0 {
			ids = append([]session.ID{after}, ids[:max(0, len(ids)-1)]...)
		}
		return ids
	})
}

func listsShortPages(b *broken) {
	changePage(b, func(_ session.ID, _ int, ids []session.ID) []session.ID { return ids[:min(len(ids), 100)] })
}

func labelsEverything(b *broken) {
	changeCreated(b, func(_ session.ID, item *session.Item) {
		if len(item.Label) == 0 {
			item.Label = []byte("none")
		}
	})
}

// deletedStaysUnlisted never lists an ID again after Delete.
func deletedStaysUnlisted(b *broken) {
	var deleted sync.Map
	b.delete = func(ctx context.Context, id session.ID) error {
		deleted.Store(id, true)
		return b.Store.Delete(ctx, id)
	}
	changePage(b, func(_ session.ID, _ int, ids []session.ID) []session.ID {
		return slices.DeleteFunc(ids, func(id session.ID) bool { _, hidden := deleted.Load(id); return hidden })
	})
}

// skipsBetweenPages loses the first item of each page but the first.
func skipsBetweenPages(b *broken) {
	b.list = func(ctx context.Context, after session.ID, limit int) ([]session.ID, error) {
		if after == (session.ID{}) || limit < 10 {
			return b.Store.List(ctx, after, limit)
		}
		skipped, err := b.Store.List(ctx, after, 1)
		if err != nil || len(skipped) == 0 {
			return nil, err
		}
		return b.Store.List(ctx, skipped[0], limit)
	}
}

func listIgnoresContext(b *broken) {
	b.list = func(_ context.Context, after session.ID, limit int) ([]session.ID, error) {
		return b.Store.List(context.Background(), after, limit)
	}
}

// keepsFirstLabel ignores the labels of Replace.
func keepsFirstLabel(b *broken) {
	var first sync.Map
	changeCreated(b, func(id session.ID, item *session.Item) { first.LoadOrStore(id, bytes.Clone(item.Label)) })
	changeReplaced(b, func(id session.ID, item *session.Item) {
		if label, ok := first.Load(id); ok {
			item.Label = label.([]byte)
		}
	})
}

// labelsOfAll returns an entry for each ID, also of missing items.
func labelsOfAll(b *broken) {
	changeLabels(b, func(ids []session.ID, found []session.Labelled) []session.Labelled {
		byID := map[session.ID][]byte{}
		for _, f := range found {
			byID[f.ID] = f.Label
		}
		all := make([]session.Labelled, len(ids))
		for i, id := range ids {
			all[i] = session.Labelled{ID: id, Label: byID[id]}
		}
		return all
	})
}

func labelsInOrderOfIDs(b *broken) {
	changeLabels(b, func(_ []session.ID, found []session.Labelled) []session.Labelled {
		slices.SortFunc(found, func(x, y session.Labelled) int { return bytes.Compare(x.ID[:], y.ID[:]) })
		return found
	})
}

// emptyLabelKeepsOld takes a write without a label for one that does not change it.
func emptyLabelKeepsOld(b *broken) {
	var last sync.Map
	changeCreated(b, func(id session.ID, item *session.Item) { last.Store(id, bytes.Clone(item.Label)) })
	changeReplaced(b, func(id session.ID, item *session.Item) {
		if old, ok := last.Load(id); ok && len(item.Label) == 0 {
			item.Label = old.([]byte)
		}
	})
}

func cutsLabels(b *broken) {
	changeCreated(b, func(_ session.ID, item *session.Item) {
		if before, _, found := bytes.Cut(item.Label, []byte{0}); found {
			item.Label = before
		}
	})
}

// labelsKeepSlice keeps the caller's slices instead of copies.
func labelsKeepSlice(b *broken) {
	given := map[session.ID][]byte{}
	keep := func(id session.ID, item *session.Item) { given[id] = item.Label }
	changeCreated(b, keep)
	changeReplaced(b, keep)
	handOutLabels(b, given)
}

// labelsHandsOutMemory returns the store's own memory.
func labelsHandsOutMemory(b *broken) {
	own := map[session.ID][]byte{}
	changeCreated(b, func(id session.ID, item *session.Item) { own[id] = bytes.Clone(item.Label) })
	handOutLabels(b, own)
}

func handOutLabels(b *broken, labels map[session.ID][]byte) {
	changeLabels(b, func(_ []session.ID, found []session.Labelled) []session.Labelled {
		for i := range found {
			found[i].Label = labels[found[i].ID]
		}
		return found
	})
}

// listsInTwoSteps reads the list, and writes it with one more ID in another step.
func listsInTwoSteps(b *broken) {
	var mu sync.Mutex
	var all []session.ID
	changeCreated(b, func(id session.ID, _ *session.Item) {
		mu.Lock()
		before := slices.Clone(all)
		mu.Unlock()
		runtime.Gosched()
		time.Sleep(time.Millisecond)
		mu.Lock()
		all = append(before, id)
		mu.Unlock()
	})
	changePage(b, func(_ session.ID, _ int, ids []session.ID) []session.ID {
		mu.Lock()
		defer mu.Unlock()
		return slices.DeleteFunc(ids, func(id session.ID) bool { return !slices.Contains(all, id) })
	})
}

// listedUntilFirstEnd lists an item only until the Expires of Create.
func listedUntilFirstEnd(b *broken) {
	var ends sync.Map
	changeCreated(b, func(id session.ID, item *session.Item) { ends.Store(id, item.Expires) })
	changePage(b, func(_ session.ID, _ int, ids []session.ID) []session.ID {
		return slices.DeleteFunc(ids, func(id session.ID) bool {
			end, ok := ends.Load(id)
			return ok && time.Now().After(end.(time.Time))
		})
	})
}
