package storetest

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
)

// changeCreated changes items before Create.
func changeCreated(b *broken, change func(id session.ID, item *session.Item)) {
	b.create = func(ctx context.Context, id session.ID, item session.Item) error {
		change(id, &item)
		return b.Store.Create(ctx, id, item)
	}
}

// changeReplaced changes items before Replace.
func changeReplaced(b *broken, change func(id session.ID, item *session.Item)) {
	b.replace = func(ctx context.Context, id session.ID, item session.Item) error {
		change(id, &item)
		return b.Store.Replace(ctx, id, item)
	}
}

// changeListed changes the results of Tagged.
func changeListed(b *broken, change func(tag session.Tag, ids []session.ID) []session.ID) {
	b.tagged = func(ctx context.Context, tag session.Tag) ([]session.ID, error) {
		ids, err := b.Store.Tagged(ctx, tag)
		return change(tag, ids), err
	}
}

func createDropsTags(b *broken) {
	changeCreated(b, func(_ session.ID, item *session.Item) { item.Tags = nil })
}

func keepsOneTag(b *broken) {
	changeCreated(b, func(_ session.ID, item *session.Item) { item.Tags = item.Tags[:min(1, len(item.Tags))] })
}

func replaceDropsTags(b *broken) {
	changeReplaced(b, func(_ session.ID, item *session.Item) { item.Tags = nil })
}

// replaceKeepsTags ignores the tags of Replace.
func replaceKeepsTags(b *broken) {
	var first sync.Map
	changeCreated(b, func(id session.ID, item *session.Item) { first.Store(id, slices.Clone(item.Tags)) })
	changeReplaced(b, func(id session.ID, item *session.Item) {
		if tags, ok := first.Load(id); ok {
			item.Tags = tags.([]session.Tag)
		}
	})
}

func taggedListsAll(b *broken) {
	var all []session.ID
	changeCreated(b, func(id session.ID, _ *session.Item) { all = append(all, id) })
	changeListed(b, func(session.Tag, []session.ID) []session.ID { return all })
}

func shortTags(b *broken) {
	changeCreated(b, func(_ session.ID, item *session.Item) {
		item.Tags = slices.Clone(item.Tags)
		for i := range item.Tags {
			item.Tags[i][len(session.Tag{})-1] = 0
		}
	})
	b.tagged = func(ctx context.Context, tag session.Tag) ([]session.ID, error) {
		tag[len(tag)-1] = 0
		return b.Store.Tagged(ctx, tag)
	}
}

func listsTheFirst(b *broken) {
	changeListed(b, func(_ session.Tag, ids []session.ID) []session.ID { return ids[:min(len(ids), 256)] })
}

func listsTwice(b *broken) {
	changeListed(b, func(_ session.Tag, ids []session.ID) []session.ID { return slices.Concat(ids, ids) })
}

// deletedStaysHidden never lists an ID again after Delete.
func deletedStaysHidden(b *broken) {
	var deleted sync.Map
	b.delete = func(ctx context.Context, id session.ID) error {
		deleted.Store(id, true)
		return b.Store.Delete(ctx, id)
	}
	changeListed(b, func(_ session.Tag, ids []session.ID) []session.ID {
		return slices.DeleteFunc(ids, func(id session.ID) bool { _, hidden := deleted.Load(id); return hidden })
	})
}

// tagsKeepSlice keeps the caller's slices instead of copies.
func tagsKeepSlice(b *broken) {
	given := map[session.ID][]session.Tag{}
	keep := func(id session.ID, item *session.Item) { given[id] = item.Tags }
	changeCreated(b, keep)
	changeReplaced(b, keep)
	changeListed(b, func(tag session.Tag, _ []session.ID) (ids []session.ID) {
		for id, tags := range given {
			if slices.Contains(tags, tag) {
				ids = append(ids, id)
			}
		}
		return ids
	})
}

func taggedIgnoresContext(b *broken) {
	b.tagged = func(_ context.Context, tag session.Tag) ([]session.ID, error) {
		return b.Store.Tagged(context.Background(), tag)
	}
}

// tagsInTwoSteps reads the list of a tag, and writes it with one more ID in another step.
func tagsInTwoSteps(b *broken) {
	var lists sync.Map
	changeCreated(b, func(id session.ID, item *session.Item) {
		for _, tag := range item.Tags {
			list, _ := lists.LoadOrStore(tag, []session.ID(nil))
			runtime.Gosched()
			time.Sleep(time.Millisecond)
			lists.Store(tag, append(slices.Clone(list.([]session.ID)), id))
		}
	})
	changeListed(b, func(tag session.Tag, _ []session.ID) []session.ID {
		list, _ := lists.LoadOrStore(tag, []session.ID(nil))
		return list.([]session.ID)
	})
}

// tagsOfFirstWrite lists an item only until the Expires of Create.
func tagsOfFirstWrite(b *broken) {
	var ends sync.Map
	changeCreated(b, func(id session.ID, item *session.Item) { ends.Store(id, item.Expires) })
	changeListed(b, func(_ session.Tag, ids []session.ID) []session.ID {
		return slices.DeleteFunc(ids, func(id session.ID) bool {
			end, ok := ends.Load(id)
			return ok && time.Now().After(end.(time.Time))
		})
	})
}
