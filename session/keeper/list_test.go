package keeper

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// loginFrom creates a session of a user with a browser.
func (r *rig) loginFrom(k *Keeper, sub, browser string) seal.Secret {
	r.t.Helper()
	_, user, tokens := r.server.login()
	user.Subject, user.UserAgent, user.IssuedAt = sub, browser, time.Now()
	secret, _, err := k.Create(r.t.Context(), user, tokens)
	if err != nil {
		r.t.Fatalf("creating session: %v", err)
	}
	return secret
}

// listAll returns the list of a vault, read in small pages.
func (r *rig) listAll(sites Sites) (all []Listed) {
	r.t.Helper()
	var after session.ID
	for {
		page, next, err := sites.List(r.t.Context(), after, 3)
		if err != nil || len(page) > 3 {
			r.t.Fatalf("List: got %d sessions, error %v, want at most 3", len(page), err)
		}
		all = append(all, page...)
		if next == (session.ID{}) {
			return all
		}
		after = next
	}
}

// wantListed checks the IDs of a list.
func (r *rig) wantListed(got []Listed, want ...session.ID) {
	r.t.Helper()
	slices.SortFunc(want, compareIDs)
	ids := make([]session.ID, len(got))
	for i := range got {
		ids[i] = got[i].ID
	}
	if !slices.Equal(ids, want) {
		r.t.Errorf("list: got %v, want %v", ids, want)
	}
}

// TestListHasEverySessionAndNothingElse: markers, login claims, and notices are items, too.
func TestListHasEverySessionAndNothingElse(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.wantListed(r.listAll(Sites{r.keeper}))
		var want []session.ID
		for range 10 {
			want = append(want, r.id(r.loginFrom(r.keeper, "alice", "")))
		}
		gone := r.loginAs(r.keeper, "bob", "1")
		if err := r.keeper.endSession(t.Context(), r.id(gone), ending{reason: EndLogout}); err == nil {
			t.Fatal("endSession: got nil, want an EndedError")
		}
		revoked := r.loginAs(r.keeper, "bob", "1")
		if found, err := (Sites{r.keeper}).EndByID(t.Context(), r.id(revoked)); !found || err != nil {
			t.Fatalf("EndByID: got %v, %v", found, err)
		}
		r.serverLogout(r.keeper, r.newLogout("bob", "1"), 0) // leaves markers
		attempt := LoginAttempt{Cookie: "cookie", Code: "code", End: time.Now().Add(time.Minute)}
		_, _, err := r.keeper.RedeemLogin(t.Context(), attempt, func(context.Context) (Redemption, error) {
			secret := r.loginFrom(r.keeper, "carol", "")
			want = append(want, r.id(secret))
			return Redemption{Secret: secret}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		r.wantListed(r.listAll(Sites{r.keeper}), want...)
		counts, err := Sites{r.keeper}.Count(t.Context())
		if err != nil || counts.BySite[r.keeper] != len(want) || counts.Unreadable != 0 {
			t.Errorf("Count: got %+v, %v, want %d", counts, err, len(want))
		}
	})
}

func TestListShowsUserBrowserAndTimes(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		begin := time.Now()
		secret := r.loginFrom(r.keeper, "alice", "Firefox on a laptop")
		label := func() Label {
			t.Helper()
			list := r.listAll(Sites{r.keeper})
			if len(list) != 1 || list[0].Err != nil || list[0].Keeper != r.keeper {
				t.Fatalf("list: got %+v, want one readable session", list)
			}
			return *list[0].Label
		}
		want := Label{Subject: "alice", Name: "family000@example.com", Created: begin, LastUsed: begin, UserAgent: "Firefox on a laptop"}
		if got := label(); !got.Created.Equal(want.Created) || !got.LastUsed.Equal(want.LastUsed) || got.Subject != want.Subject || got.Name != want.Name || got.UserAgent != want.UserAgent {
			t.Errorf("after the login: got %+v, want %+v", got, want)
		}
		r.waitUntilExpired() // a refresh writes the record
		r.fresh(secret)
		time.Sleep(time.Hour)
		used := time.Now()
		r.fresh(secret)
		if got := label(); got.LastUsed.Before(used) || !got.Created.Equal(begin) || got.UserAgent != want.UserAgent || got.Name != want.Name {
			t.Errorf("after a refresh and a use: got %+v, want the same with a use at %v", got, used)
		}
		request := new(Attachment)
		r.keeper.AttachUse(t.Context(), secret, r.fresh(secret), request)
		time.Sleep(time.Second)
		if got := label(); !got.LastUsed.Equal(time.Now()) {
			t.Errorf("during a request: got last use %v, want now, %v", got.LastUsed, time.Now())
		}
		request.Detach()
	})
}

// TestSessionOfAnEarlierReleaseIsListedAfterItsNextWrite, and by its user at once.
func TestSessionOfAnEarlierReleaseIsListedAfterItsNextWrite(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret := r.loginAs(r.keeper, "alice", "1")
		id := r.id(secret)
		item, _ := r.store.item(id)
		item.Label = nil
		r.store.put(id, item)
		sites := Sites{r.keeper}
		r.wantListed(r.listAll(sites))
		page, _, err := sites.ListUser(t.Context(), "alice", session.ID{}, 10)
		if err != nil || len(page) != 1 || !errors.Is(page[0].Err, ErrNoLabel) || page[0].Keeper != r.keeper {
			t.Errorf("ListUser: got %+v, %v, want the session without a label", page, err)
		}
		time.Sleep(time.Hour)
		r.fresh(secret)
		time.Sleep(time.Minute)
		r.wantListed(r.listAll(sites), id)
		if n, err := sites.EndUser(t.Context(), "alice"); n != 1 || err != nil {
			t.Errorf("EndUser: got %d, %v, want 1", n, err)
		}
	})
}

// TestUnreadableLabelIsListedAsSuch: its key is dropped, another site has sealed it, or
// someone has altered it.
func TestUnreadableLabelIsListedAsSuch(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(r *rig, label []byte) []byte
		part   seal.Part
	}{
		"altered": {func(_ *rig, label []byte) []byte { label[len(label)-1] ^= 1; return label }, seal.PartLabel},
		"cut":     {func(_ *rig, label []byte) []byte { return label[:20] }, seal.PartLabel},
		"other session": {func(r *rig, _ []byte) []byte {
			item, _ := r.store.item(r.id(r.loginFrom(r.keeper, "mallory", "")))
			return item.Label
		}, seal.PartLabel},
		"dropped key": {func(r *rig, label []byte) []byte {
			ring, err := seal.NewKeyRing(testKey(9))
			if err != nil {
				r.t.Fatal(err)
			}
			r.config.Site.SetKeys(ring)
			return label
		}, seal.PartKey},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				id := r.id(r.loginFrom(r.keeper, "alice", ""))
				item, _ := r.store.item(id)
				item.Label = tt.change(r, bytes.Clone(item.Label))
				r.store.put(id, item)
				for _, l := range r.listAll(Sites{r.keeper}) {
					var unreadable *seal.UnreadableError
					if l.ID == id && (l.Label != nil || l.Keeper != nil || !errors.As(l.Err, &unreadable) || unreadable.Part != tt.part) {
						t.Errorf("got %+v, want part %q to be unreadable", l, tt.part)
					}
				}
				if n, err := (Sites{r.keeper}).EndOlderThan(t.Context(), 0); err != nil || name != "other session" && n != 0 {
					t.Errorf("EndOlderThan: got %d, %v, want no end of a session that may be another site's", n, err)
				}
				if found, err := (Sites{r.keeper}).EndByID(t.Context(), id); !found || err != nil {
					t.Errorf("EndByID: got %v, %v, want true", found, err)
				}
			})
		})
	}
}

// TestSitesOfOneStoreAreToldApart by their labels.
func TestSitesOfOneStoreAreToldApart(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		c := r.config
		ring, err := seal.NewKeyRing(testKey(1))
		if err != nil {
			t.Fatal(err)
		}
		c.Site = seal.NewSite(ring, "https://as.example.com", "other", "cookie")
		other := mustKeeper(c)
		mine, theirs := r.id(r.loginFrom(r.keeper, "alice", "")), c.Site.Ref(r.loginFrom(other, "alice", "")).ID
		r.wantListed(r.listAll(Sites{r.keeper, other}), mine, theirs)
		for _, l := range r.listAll(Sites{r.keeper, other}) {
			if want := map[session.ID]*Keeper{mine: r.keeper, theirs: other}[l.ID]; l.Keeper != want {
				t.Errorf("session %v: got the keeper of the other site", l.ID)
			}
		}
		page, _, err := Sites{other}.ListUser(t.Context(), "alice", session.ID{}, 10)
		if err != nil {
			t.Fatal(err)
		}
		r.wantListed(page, theirs)
		if n, err := (Sites{other}).EndOlderThan(t.Context(), 0); n != 1 || err != nil {
			t.Errorf("EndOlderThan: got %d, %v, want the session of the site alone", n, err)
		}
		r.wantListed(r.listAll(Sites{r.keeper, other}), mine)
	})
}

// TestListUserIsPaged, and has no other users.
func TestListUserIsPaged(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		var want []session.ID
		for range 7 {
			want = append(want, r.id(r.loginFrom(r.keeper, "alice", "")))
			r.loginFrom(r.keeper, "bob", "")
		}
		var all []Listed
		for after, more := (session.ID{}), true; more; {
			page, next, err := Sites{r.keeper}.ListUser(t.Context(), "alice", after, 3)
			if err != nil || len(page) > 3 {
				t.Fatalf("got %d sessions, error %v, want at most 3", len(page), err)
			}
			all = append(all, page...)
			after, more = next, next != (session.ID{})
		}
		r.wantListed(all, want...)
	})
}

// TestStoreSeesNoNames: someone who has only the store learns neither users nor browsers.
// The label has no token, so the server's key adds none.
func TestStoreSeesNoNames(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.server.idTokens = true
		secret := r.loginFrom(r.keeper, "alice-of-wonderland", "Firefox on a laptop")
		r.waitUntilExpired()
		s := r.fresh(secret)
		item, _ := r.store.item(r.id(secret))
		for _, part := range []string{"alice", "family", "example.com", "Firefox"} {
			if bytes.Contains(item.Label, []byte(part)) {
				t.Errorf("got %q in the sealed label", part)
			}
		}
		plain, err := r.config.Site.OpenLabel(r.id(secret), item.Label)
		if err != nil {
			t.Fatal(err)
		}
		rec := r.stored(secret)
		for name, token := range map[string]string{"access": s.AccessToken, "refresh": rec.refreshToken, "ID": rec.idToken, "cookie": secret.Cookie()} {
			if bytes.Contains(plain, []byte(token)) {
				t.Errorf("got the %s token in the label", name)
			}
		}
	})
}

func TestTextsOfALabelAreCut(t *testing.T) {
	long := string(bytes.Repeat([]byte("ü"), 1000))
	inBubble(t, func(t *testing.T, r *rig) {
		_, user, tokens := r.server.login()
		user.Subject, user.UserAgent, user.Claims = long, long, []byte(`{"name":"`+long+`","email":7}`)
		if _, _, err := r.keeper.Create(t.Context(), user, tokens); err != nil {
			t.Fatal(err)
		}
		l := r.listAll(Sites{r.keeper})[0]
		if l.Label == nil || l.Label.Subject != long[:maxLabelSubject] || l.Label.Name != long[:maxLabelName] || l.Label.UserAgent != long[:maxLabelUserAgent] {
			t.Errorf("got %+v, want texts cut between characters", l)
		}
	})
	for text, want := range map[string]string{"": "", "abc": "abc", "abcü": "abcü", "abcdü": "abcd", "a\xff": "a\uFFFD"} {
		if got := cut(text, 5); got != want {
			t.Errorf("cut(%q, 5): got %q, want %q", text, got, want)
		}
	}
}

func TestNameOfAUser(t *testing.T) {
	for claims, want := range map[string]string{
		`{"name":"Alice","email":"a@example.com","preferred_username":"alice"}`: "alice",
		`{"name":"Alice","email":"a@example.com","preferred_username":7}`:       "a@example.com",
		`{"name":"Alice","email":""}`:                                           "Alice",
		`{"Name":"Alice"}`:                                                      "",
		`{}`:                                                                    "",
		``:                                                                      "",
		`[`:                                                                     "",
	} {
		if got := nameOf([]byte(claims)); got != want {
			t.Errorf("%s: got %q, want %q", claims, got, want)
		}
	}
}

// TestEndedSessionIsNotListed, also if the store has not deleted it yet.
func TestEndedSessionIsNotListed(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		secret := r.loginFrom(r.keeper, "alice", "")
		r.store.fail(opDelete)
		if _, err := r.keeper.End(t.Context(), secret, EndLogout); err != nil {
			t.Fatal(err)
		}
		r.wantListed(r.listAll(Sites{r.keeper}))
	})
}

// TestListFailsWithTheStore, and ends with its context.
func TestListFailsWithTheStore(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.loginFrom(r.keeper, "alice", "")
		sites := Sites{r.keeper}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, _, err := sites.List(ctx, session.ID{}, 1); !errors.Is(err, context.Canceled) {
			t.Errorf("List with an ended context: got error %v, want that of the context", err)
		}
		r.store.fail(opList)
		var unavailable *UnavailableError
		if _, _, err := sites.List(t.Context(), session.ID{}, 1); !errors.As(err, &unavailable) {
			t.Errorf("List: got error %v, want an *UnavailableError", err)
		}
		if _, _, err := sites.ListUser(t.Context(), "alice", session.ID{}, 1); !errors.As(err, &unavailable) {
			t.Errorf("ListUser: got error %v, want an *UnavailableError", err)
		}
		if _, err := sites.EndOlderThan(t.Context(), 0); !errors.As(err, &unavailable) {
			t.Errorf("EndOlderThan: got error %v, want an *UnavailableError", err)
		}
	})
}
