package handler

import (
	"fmt"
	"html"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// mostLogins is the greatest number of login cookies in a browser.
const mostLogins = 5

// startTabs opens n tabs and stops each at the authorization server.
func startTabs(b *browser, n int) (wanted, at []string) {
	b.t.Helper()
	for i := range n {
		wanted = append(wanted, fmt.Sprintf("/page/%d?tab=%d", i, i))
		at = append(at, b.start(wanted[i]))
	}
	return wanted, at
}

// TestTenTabsLogInIndependently: each reaches its own page, in any order.
func TestTenTabsLogInIndependently(t *testing.T) {
	const n = 10
	orders := map[string]func([]int){
		"in order": func([]int) {},
		"reversed": slices.Reverse[[]int],
	}
	for seed := range uint64(5) {
		orders[fmt.Sprintf("shuffled %d", seed)] = func(order []int) {
			rand.New(rand.NewPCG(seed, 0)).Shuffle(n, func(i, j int) { order[i], order[j] = order[j], order[i] })
		}
	}
	for name, arrange := range orders {
		t.Run(name, func(t *testing.T) {
			g := newRig(t)
			b := g.browser()
			wanted, at := startTabs(b, n)
			if logins := b.jar.logins(); len(logins) > mostLogins {
				t.Errorf("got %d login cookies, want at most one for each tab", len(logins))
			}
			order := make([]int, n)
			for i := range order {
				order[i] = i
			}
			arrange(order)
			for _, i := range order {
				b.wantAppAt(b.open(b.approve(at[i])), wanted[i])
			}
			// The page of a tab that finished earlier still works.
			b.mustReach(wanted[order[0]])
			if len(b.hops) != 1 {
				t.Errorf("got hops %q, want a session in the end", b.hops)
			}
		})
	}
}

// TestTabsThatFinishTogetherReachTheirPages: all callbacks are sent before the
// first answer arrives.
func TestTabsThatFinishTogetherReachTheirPages(t *testing.T) {
	g := newRig(t)
	b := g.browser()
	wanted, at := startTabs(b, maxLoginAttempts)
	cookies := b.jar.header(false)
	answers := make([]*answer, len(at))
	done := make(chan int)
	for i := range at {
		callback := b.approve(at[i])
		go func() {
			r := g.request(http.MethodGet, callback, navigation...)
			r.Header["Cookie"] = cookies
			answers[i] = g.do(r)
			done <- i
		}()
	}
	for range at {
		<-done
	}
	for i, a := range answers {
		b.jar.set(a.header["Set-Cookie"])
		if a.status != http.StatusSeeOther || a.location() != appOrigin+wanted[i] {
			t.Errorf("tab %d: got status %d, want 303 to %q", i, a.status, a.location())
		}
	}
	b.mustReach("/")
	if len(b.hops) != 1 {
		t.Errorf("got hops %q, want a session in the end", b.hops)
	}
}

// TestTabsThatPushEachOtherOutReachTheirPages: each of ten tabs has lost its attempt to
// the later ones when its callback arrives, and so has the attempt of its second login.
func TestTabsThatPushEachOtherOutReachTheirPages(t *testing.T) {
	for name, mode := range map[string]func(*setup){"query": func(*setup) {}, "form_post": formPostMode, "strict": sameSite("strict")} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, mode)
			b := g.browser()
			back := func(at string) *answer {
				if g.handler.Client.FormPost() {
					_, form := submittedForm(b.post(b.response(at)).body)
					return b.submit("/oauth2/callback", form, b.origin())
				}
				return b.send(g.request("GET", b.approve(at), navigation...), true)
			}
			wanted, at := startTabs(b, 10)
			for i := range at[:5] {
				at[i] = back(at[i]).location() // takes the room of a tab that has it
			}
			for i := range at[5:] {
				at[5+i] = back(at[5+i]).location()
			}
			for i := range at[:5] {
				a := back(at[i])
				wait := goesOn.FindStringSubmatch(a.body)
				if a.status != 503 || a.header.Get("Retry-After") != "2" || wait == nil || html.UnescapeString(wait[2]) != wanted[i] || !strings.Contains(a.body, "login_in_other_tab") {
					t.Fatalf("tab %d: got status %d: %s, want a page that waits for the other tabs", i, a.status, a.body)
				}
			}
			for i := range at[5:] {
				if a := back(at[5+i]); !strings.Contains(a.body+a.location(), html.EscapeString(wanted[5+i])) {
					t.Errorf("tab %d: got status %d to %s, want %s", 5+i, a.status, a.location(), wanted[5+i])
				}
			}
			for i := range wanted {
				b.mustReach(wanted[i])
				if len(b.hops) != 1 {
					t.Errorf("tab %d: got hops %q, want the session of another tab", i, b.hops)
				}
			}
		})
	}
}

// TestSecondTabKeepsTheSessionOfTheFirst: two tabs wait for the same login, as
// after a restart of the browser. The first page is loading when the second tab
// returns.
func TestSecondTabKeepsTheSessionOfTheFirst(t *testing.T) {
	g := newRig(t)
	b := g.browser()
	wanted, at := startTabs(b, 2)
	b.wantAppAt(b.open(b.approve(at[0])), wanted[0])
	old := b.jar.get(sessionCookie).Value
	g.app.answer = func(w http.ResponseWriter, r *http.Request) error {
		g.app.answer = nil
		b.wantAppAt(b.open(b.approve(at[1])), wanted[1])
		if r.Context().Err() != nil {
			t.Error("got the first tab's request cancelled by the second tab's login, want it running")
		}
		return nil
	}
	b.fetch("GET", "/data")
	// The browser sent this before it got the second tab's answer.
	if a := g.get("/more", append(script, "Cookie: "+sessionCookie+"="+old)...); a.status != http.StatusOK {
		t.Errorf("the first tab's next request: got status %d, want 200", a.status)
	}
}

func TestUnfinishedNavigationsLeaveFewCookies(t *testing.T) {
	g := newRig(t)
	b := g.browser()
	for i := range 300 {
		b.start(fmt.Sprintf("/page/%d", i))
		if n := len(b.jar.logins()); n > mostLogins {
			t.Fatalf("got %d login cookies after %d navigations, want few", n, i+1)
		}
	}
	if b.jar.largest > 8<<10 {
		t.Errorf("got a Cookie header of %d bytes, want at most 8 KiB", b.jar.largest)
	}
	for range 50 {
		if a := b.fetch("GET", "/api"); a.status != http.StatusUnauthorized || a.header["Set-Cookie"] != nil {
			t.Fatalf("a script: got status %d, want 401, cookies %q", a.status, a.header["Set-Cookie"])
		}
	}
	b.mustReach("/page/301")
}

// TestLongURLsKeepTheCookieHeaderShort: many servers accept at most 8 KiB of Cookie
// header, and any site can send a browser to long URLs here.
func TestLongURLsKeepTheCookieHeaderShort(t *testing.T) {
	g := newRig(t)
	b := g.browser()
	for range 20 {
		b.start("/?" + strings.Repeat("x", maxReturnPath-2))
	}
	b.start("/")
	if b.jar.largest > 8<<10 {
		t.Errorf("got a Cookie header of %d bytes, want at most 8 KiB", b.jar.largest)
	}
}

// TestLongURLsSurviveTheLogin up to maxReturnPath, whatever their characters.
func TestLongURLsSurviveTheLogin(t *testing.T) {
	g := newRig(t)
	for name, wanted := range map[string]string{
		"letters":         "/?" + strings.Repeat("x", maxReturnPath-2),
		"path":            "/" + strings.Repeat("x", maxReturnPath-1),
		"many parameters": "/?" + strings.Repeat("a=1&", 500),
		"ampersands":      "/?" + strings.Repeat("&", maxReturnPath-2),
	} {
		t.Run(name, func(t *testing.T) {
			b := g.browser()
			b.wantAppAt(b.open(wanted), wanted)
		})
	}
	tooLong := "/page?" + strings.Repeat("x", maxReturnPath)
	b := g.browser()
	b.wantAppAt(b.open(tooLong), "/page")
	b = g.browser()
	b.wantAppAt(b.open("/"+strings.Repeat("x", maxReturnPath)), "/")
}

func TestStateOpensWithItsContent(t *testing.T) {
	g := newRig(t)
	for _, char := range []string{"x", "&", "%22", "'"} {
		path := "/?" + strings.Repeat(char, (maxStateReturnPath-2)/len(char))
		state, err := g.handler.sealState(loginState{ReturnTo: path})
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := g.handler.openState(state); !ok || got.ReturnTo != path {
			t.Errorf("state of %d bytes for a path of %q: got %v, %.20q, want the path", len(state), char, ok, got.ReturnTo)
		}
	}
}

func TestEvictionKeepsTheYoungestAttempts(t *testing.T) {
	g := newRig(t)
	b := g.browser()
	_, at := startTabs(b, mostLogins)
	cookies := b.jar.logins()
	expect := func(when string, there ...bool) {
		t.Helper()
		for i, want := range there {
			if got := b.jar.get(cookies[i].Name) != nil; got != want {
				t.Errorf("%s: the cookie of attempt %d is there: %v, want %v", when, i, got, want)
			}
		}
	}
	// A cookie that cannot be opened is deleted first, and then the oldest attempt.
	b.jar.set([]string{loginCookiePrefix + "garbage=x; Path=/; Secure"})
	b.start("/one-more")
	expect("one more", false, true, true, true, true)
	if b.jar.get(loginCookiePrefix+"garbage") != nil {
		t.Error("got a cookie that cannot be opened, want it deleted")
	}
	// A finished attempt makes room for the next.
	b.open(b.approve(at[4]))
	expect("one finished", false, true, true, true, false)
	b.start("/oauth2/login")
	expect("another", false, true, true, true, false)
}
