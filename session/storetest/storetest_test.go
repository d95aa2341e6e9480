package storetest

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/memory"
)

// broken is a correct store with some methods replaced by broken ones.
type broken struct {
	session.Store
	view    func(ctx context.Context, id session.ID, f func(session.Item) error) error
	create  func(ctx context.Context, id session.ID, item session.Item) error
	replace func(ctx context.Context, id session.ID, item session.Item) error
	delete  func(ctx context.Context, id session.ID) error
	tagged  taggedFunc
	list    listFunc
	labels  labelsFunc
}

type taggedFunc = func(ctx context.Context, tag session.Tag) ([]session.ID, error)

func (b *broken) View(ctx context.Context, id session.ID, f func(session.Item) error) error {
	if b.view != nil {
		return b.view(ctx, id, f)
	}
	return b.Store.View(ctx, id, f)
}

func (b *broken) Create(ctx context.Context, id session.ID, item session.Item) error {
	if b.create != nil {
		return b.create(ctx, id, item)
	}
	return b.Store.Create(ctx, id, item)
}

func (b *broken) Replace(ctx context.Context, id session.ID, item session.Item) error {
	if b.replace != nil {
		return b.replace(ctx, id, item)
	}
	return b.Store.Replace(ctx, id, item)
}

func (b *broken) Delete(ctx context.Context, id session.ID) error {
	if b.delete != nil {
		return b.delete(ctx, id)
	}
	return b.Store.Delete(ctx, id)
}

func (b *broken) Tagged(ctx context.Context, tag session.Tag) ([]session.ID, error) {
	if b.tagged != nil {
		return b.tagged(ctx, tag)
	}
	return b.Store.Tagged(ctx, tag)
}

// saboteurs break one rule each. The check with the same name must fail.
var saboteurs = map[string]func(b *broken){
	"View/missing":          missingIsNil,
	"View/found":            forgetsExpires,
	"View/ids":              shortIDs,
	"View/callback error":   wrapsCallbackError,
	"View/values":           limitsValues,
	"context":               ignoresContext,
	"Create/twice":          createOverwrites,
	"Create/after Delete":   deleteBlocksCreate,
	"Create/copy":           createKeepsSlice,
	"Replace/next":          replaceDoesNothing,
	"Replace/other version": replaceIgnoresVersion,
	"Replace/missing":       replaceCreates,
	"Replace/after Delete":  replaceRestoresDeleted,
	"Replace/copy":          replaceKeepsSlice,
	"Delete/any version":    deleteFirstVersionOnly,
	"Delete/missing":        deleteMissingFails,
	"Tagged/Create":         createDropsTags,
	"Tagged/none":           taggedListsAll,
	"Tagged/tags":           shortTags,
	"Tagged/both":           keepsOneTag,
	"Tagged/many":           listsTheFirst,
	"Tagged/once":           listsTwice,
	"Tagged/Replace":        replaceKeepsTags,
	"Tagged/late":           replaceDropsTags,
	"Tagged/again":          deletedStaysHidden,
	"Tagged/copy":           tagsKeepSlice,
	"Tagged/context":        taggedIgnoresContext,
	"concurrent/Tagged":     tagsInTwoSteps,
	"tagged for its life":   tagsOfFirstWrite,
	"List/Create":           createDropsLabel,
	"List/order":            listsBackwards,
	"List/after":            listsFrom,
	"List/limit":            listsShortPages,
	"List/none":             labelsEverything,
	"List/late":             replaceDropsLabel,
	"List/again":            deletedStaysUnlisted,
	"List/pages":            skipsBetweenPages,
	"List/context":          listIgnoresContext,
	"Labels/Replace":        keepsFirstLabel,
	"Labels/gone":           labelsOfAll,
	"Labels/order":          labelsInOrderOfIDs,
	"Labels/empty":          emptyLabelKeepsOld,
	"Labels/values":         cutsLabels,
	"Labels/copy":           labelsKeepSlice,
	"Labels/copies":         labelsHandsOutMemory,
	"expired/Labels":        labelsOfAll,
	"concurrent/List":       listsInTwoSteps,
	"listed for its life":   listedUntilFirstEnd,
	"expired/View":          showsExpired,
	"expired/Create":        expiredBlocksCreate,
	"expired/Replace":       showsExpired,
	"concurrent/Create":     createOverwrites,
	"concurrent/Replace":    replaceIgnoresVersion,
	"concurrent/Delete":     replaceRestoresDeleted,
	"concurrent/View":       tearsValues,
	"concurrent/results":    mixesResults,
	"expires on time":       showsExpired,
	"Replace moves Expires": replaceKeepsExpires,
	"outlives a sweep":      dropsAfterADay,
}

func newBroken(t *testing.T, sabotage func(*broken)) session.Store {
	good := memory.New()
	t.Cleanup(func() { _ = good.Close() })
	b := &broken{Store: good}
	sabotage(b)
	return b
}

func TestEveryCheckFailsOnABrokenStore(t *testing.T) {
	try := func(t *testing.T, c check) {
		if saboteurs[c.name] == nil {
			t.Fatal("got no broken store for this check, want one")
		}
		err := c.run(newProbe(newBroken(t, saboteurs[c.name])))
		if err == nil {
			t.Errorf("got nil from the check of a broken store, want an error: %s", c.rule)
		} else {
			t.Logf("refused: %v", err)
		}
	}
	for _, c := range allChecks() {
		t.Run(c.name, func(t *testing.T) { try(t, c) })
	}
	for _, c := range agingChecks {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { try(t, c) })
		})
	}
}

func TestCheckNamesAreUnique(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range slices.Concat(allChecks(), agingChecks, allSharedChecks()) {
		if seen[c.name] {
			t.Errorf("got two checks named %q, want one", c.name)
		}
		seen[c.name] = true
		if !strings.HasSuffix(c.rule, ".") {
			t.Errorf("rule of %s: got %q, want a sentence", c.name, c.rule)
		}
	}
	for name := range saboteurs {
		if !seen[name] {
			t.Errorf("got a broken store for %q, want a check of this name", name)
		}
	}
}

func missingIsNil(b *broken) {
	b.view = func(ctx context.Context, id session.ID, f func(session.Item) error) error {
		if err := b.Store.View(ctx, id, f); !errors.Is(err, session.ErrNotFound) {
			return err
		}
		return nil
	}
}

func forgetsExpires(b *broken) {
	b.view = func(ctx context.Context, id session.ID, f func(session.Item) error) error {
		return b.Store.View(ctx, id, func(item session.Item) error {
			item.Expires = time.Time{}
			return f(item)
		})
	}
}

func shortIDs(b *broken) {
	b.create = func(ctx context.Context, id session.ID, item session.Item) error {
		id[len(id)-1] = 0
		return b.Store.Create(ctx, id, item)
	}
	b.view = func(ctx context.Context, id session.ID, f func(session.Item) error) error {
		id[len(id)-1] = 0
		return b.Store.View(ctx, id, f)
	}
}

func wrapsCallbackError(b *broken) {
	b.view = func(ctx context.Context, id session.ID, f func(session.Item) error) error {
		if err := b.Store.View(ctx, id, f); err != nil {
			return errors.Join(err)
		}
		return nil
	}
}

func limitsValues(b *broken) {
	b.create = func(ctx context.Context, id session.ID, item session.Item) error {
		item.Value = item.Value[:min(len(item.Value), 1<<16-1)]
		return b.Store.Create(ctx, id, item)
	}
}

func ignoresContext(b *broken) {
	b.view = func(_ context.Context, id session.ID, f func(session.Item) error) error {
		return b.Store.View(context.Background(), id, f)
	}
}

func createOverwrites(b *broken) {
	b.create = func(ctx context.Context, id session.ID, item session.Item) error {
		return errors.Join(b.Store.Delete(ctx, id), ignoreConflict(b.Store.Create(ctx, id, item)))
	}
}

// deleteBlocksCreate refuses Create under an ID that was deleted.
func deleteBlocksCreate(b *broken) {
	var deleted sync.Map
	b.delete = func(ctx context.Context, id session.ID) error {
		deleted.Store(id, true)
		return b.Store.Delete(ctx, id)
	}
	b.create = func(ctx context.Context, id session.ID, item session.Item) error {
		if _, marked := deleted.Load(id); marked {
			return session.ErrConflict
		}
		return b.Store.Create(ctx, id, item)
	}
}

// shareSlices makes View show the caller's slices instead of copies.
func shareSlices(b *broken, shared *sync.Map) {
	b.view = func(ctx context.Context, id session.ID, f func(session.Item) error) error {
		return b.Store.View(ctx, id, func(item session.Item) error {
			if v, ok := shared.Load(id); ok {
				item.Value = v.([]byte)
			}
			return f(item)
		})
	}
}

func createKeepsSlice(b *broken) {
	var shared sync.Map
	shareSlices(b, &shared)
	b.create = func(ctx context.Context, id session.ID, item session.Item) error {
		shared.Store(id, item.Value)
		return b.Store.Create(ctx, id, item)
	}
}

func replaceKeepsSlice(b *broken) {
	var shared sync.Map
	shareSlices(b, &shared)
	b.replace = func(ctx context.Context, id session.ID, item session.Item) error {
		shared.Store(id, item.Value)
		return b.Store.Replace(ctx, id, item)
	}
}

func replaceDoesNothing(b *broken) {
	b.replace = func(context.Context, session.ID, session.Item) error { return nil }
}

func replaceIgnoresVersion(b *broken) {
	b.replace = func(ctx context.Context, id session.ID, item session.Item) error {
		if err := b.Store.View(ctx, id, func(session.Item) error { return nil }); err != nil {
			return session.ErrConflict
		}
		return errors.Join(b.Store.Delete(ctx, id), ignoreConflict(b.Store.Create(ctx, id, item)))
	}
}

func replaceCreates(b *broken) {
	b.replace = func(ctx context.Context, id session.ID, item session.Item) error {
		if item.Version == 1 {
			return b.Store.Create(ctx, id, item)
		}
		return b.Store.Replace(ctx, id, item)
	}
}

func replaceRestoresDeleted(b *broken) {
	b.replace = func(ctx context.Context, id session.ID, item session.Item) error {
		err := b.Store.Replace(ctx, id, item)
		gone := b.Store.View(ctx, id, func(session.Item) error { return nil })
		if errors.Is(gone, session.ErrNotFound) {
			return b.Store.Create(ctx, id, item)
		}
		return err
	}
}

func deleteFirstVersionOnly(b *broken) {
	b.delete = func(ctx context.Context, id session.ID) error {
		var version uint64
		err := b.Store.View(ctx, id, func(item session.Item) error { version = item.Version; return nil })
		if err == nil && version == 1 {
			return b.Store.Delete(ctx, id)
		}
		return nil
	}
}

func deleteMissingFails(b *broken) {
	b.delete = func(ctx context.Context, id session.ID) error {
		if err := b.Store.View(ctx, id, func(session.Item) error { return nil }); err != nil {
			return err
		}
		return b.Store.Delete(ctx, id)
	}
}

// showsExpired keeps every item for two hours after Expires.
func showsExpired(b *broken) {
	b.create = func(ctx context.Context, id session.ID, item session.Item) error {
		item.Expires = item.Expires.Add(2 * time.Hour)
		return b.Store.Create(ctx, id, item)
	}
	b.view = func(ctx context.Context, id session.ID, f func(session.Item) error) error {
		return b.Store.View(ctx, id, func(item session.Item) error {
			item.Expires = item.Expires.Add(-2 * time.Hour)
			return f(item)
		})
	}
}

func expiredBlocksCreate(b *broken) {
	var taken sync.Map
	b.create = func(ctx context.Context, id session.ID, item session.Item) error {
		if _, exists := taken.LoadOrStore(id, true); exists {
			return session.ErrConflict
		}
		return b.Store.Create(ctx, id, item)
	}
}

// tearsValues clears the second half of the value in Replace.
func tearsValues(b *broken) {
	b.replace = func(ctx context.Context, id session.ID, item session.Item) error {
		item.Value = bytes.Clone(item.Value)
		clear(item.Value[len(item.Value)/2:])
		return b.Store.Replace(ctx, id, item)
	}
}

// mixesResults never returns ErrConflict from Create, as if all calls had succeeded.
func mixesResults(b *broken) {
	b.create = func(ctx context.Context, id session.ID, item session.Item) error {
		return ignoreConflict(b.Store.Create(ctx, id, item))
	}
}

func replaceKeepsExpires(b *broken) {
	b.replace = func(ctx context.Context, id session.ID, item session.Item) error {
		_ = b.Store.View(ctx, id, func(old session.Item) error {
			item.Expires = old.Expires
			return nil
		})
		return b.Store.Replace(ctx, id, item)
	}
}

// dropsAfterADay removes items by age instead of by Expires.
func dropsAfterADay(b *broken) {
	b.create = func(ctx context.Context, id session.ID, item session.Item) error {
		time.AfterFunc(24*time.Hour, func() { _ = b.Store.Delete(context.Background(), id) })
		return b.Store.Create(ctx, id, item)
	}
}

func ignoreConflict(err error) error {
	if errors.Is(err, session.ErrConflict) {
		return nil
	}
	return err
}
