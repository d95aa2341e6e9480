package security

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/oauth-session/caddy-oauth-session/e2e/client"
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// TestS11ForeignCallbackIsNotRedeemed: the callback of the attacker's login does not log a
// victim in, and its code is not redeemed. The site starts a new login for the victim,
// once.
func TestS11ForeignCallbackIsNotRedeemed(t *testing.T) {
	w := shared(t)
	attacker := w.browser()
	authorization := attacker.start(t, "/x")
	answer := attacker.approve(t, authorization)
	for _, tc := range []struct {
		name  string
		lines func() []string
	}{
		{"victim without cookies", func() []string { return nil }},
		{"victim with a login of its own", func() []string {
			victim := w.browser()
			victim.start(t, "/y")
			return []string{"Cookie: " + strings.Join(victim.logins(), "; ")}
		}},
		{"victim's login under the attacker's name", func() []string {
			victim := w.browser()
			victim.start(t, "/y")
			name, _, _ := strings.Cut(attacker.logins()[0], "=")
			_, value, _ := strings.Cut(victim.logins()[0], "=")
			return []string{"Cookie: " + name + "=" + value}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			calls := w.tokenRequests()
			resp := w.rawGet(t, answer.RequestURI(), append(tc.lines(), navigationHeaders...)...)
			if n := w.tokenRequests(); n != calls {
				t.Errorf("got %d token requests, want none", n-calls)
			}
			if strings.Contains(strings.Join(resp.Header.Values("Set-Cookie"), "\n"), sessionCookie) {
				t.Error("the site set a session cookie")
			}
			to, err := url.Parse(resp.Header.Get("Location"))
			if err != nil || resp.Status != http.StatusFound || !w.isAuthorization(to) {
				t.Fatalf("got %d %v, want a new login", resp.Status, resp.Header)
			}
			if to.Query().Get("state") == authorization.Query().Get("state") {
				t.Error("the new login has the attacker's state")
			}
			// The second callback starts no further login.
			state := url.Values{"state": to.Query()["state"], "code": {"x"}}
			if resp := w.rawGet(t, callback+"?"+state.Encode(), navigationHeaders...); resp.Status != http.StatusBadRequest {
				t.Errorf("second callback: got %d, want 400", resp.Status)
			}
		})
	}
}

// TestS14TabsEndWhereTheyBegan: concurrent logins in several tabs each end on their own
// page.
func TestS14TabsEndWhereTheyBegan(t *testing.T) {
	w := shared(t)
	for _, n := range []int{2, 10} {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			b := w.browser()
			var tabs []*url.URL
			for i := range n {
				tabs = append(tabs, b.start(t, fmt.Sprintf("/deep/%d?tab=%d", i, i)))
			}
			for i, tab := range slices.Backward(tabs) {
				page, err := b.Visit(t.Context(), tab.String())
				if err == nil {
					err = b.checkLogin(page, fmt.Sprintf("/deep/%d?tab=%d", i, i))
				}
				if err != nil {
					t.Errorf("tab %d: %v", i, err)
				}
			}
		})
	}
}

// TestS15UnfinishedLoginsLeaveFewCookies: unfinished logins do not fill the Cookie header
// until servers refuse it.
func TestS15UnfinishedLoginsLeaveFewCookies(t *testing.T) {
	w := shared(t)
	b := w.browser()
	padding := strings.Repeat("x", 1500)
	for i := range 300 {
		b.start(t, fmt.Sprintf("/%d?%s", i, padding[:i*5]))
		if size := len(strings.Join(b.logins(), "; ")); size > 8<<10 {
			t.Fatalf("after %d logins: got %d bytes of cookies, want at most 8 KiB", i+1, size)
		}
	}
	b.login(t, "/at-last")
}

// TestS16AnonymousRequestsCostNoStorage: navigations without a session write nothing to
// the store and do not grow the memory.
func TestS16AnonymousRequestsCostNoStorage(t *testing.T) {
	w := newWorld(t, plan{})
	n := floodSize(t, 2000)
	// The first requests fill pools and caches.
	w.sendNavigations(t, 200)
	store := fileFingerprint(t, w.instances[0].sessionsFile())
	memory := w.instances[0].metric(t, "process_resident_memory_bytes")
	w.sendNavigations(t, n)
	if got := fileFingerprint(t, w.instances[0].sessionsFile()); got != store {
		t.Errorf("the store changed: got %s, want %s", got, store)
	}
	if grown := w.instances[0].metric(t, "process_resident_memory_bytes") - memory; grown > 64<<20 {
		t.Errorf("memory grew by %.0f MiB, want at most 64", grown/(1<<20))
	}
	// During a flood, real logins work.
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.sendNavigations(t, n/4)
	}()
	b := w.browser()
	for range 20 {
		b.login(t, "/real")
	}
	<-done
}

// sendNavigations sends n navigations from browsers without cookies.
func (w *world) sendNavigations(t *testing.T, n int) {
	var workers sync.WaitGroup
	const parallel = 8
	for range parallel {
		workers.Go(func() {
			b := w.browser()
			for range n / parallel {
				b.Jar = new(client.Jar)
				resp, err := b.trySend(t.Context(), http.MethodGet, "/flood", "", navigationHeaders...)
				if err != nil || resp.Status != http.StatusFound {
					t.Errorf("got %v, %v, want the start of a login", resp, err)
					return
				}
			}
		})
	}
	workers.Wait()
}

// fileFingerprint returns a text that changes when the file changes.
func fileFingerprint(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d bytes, %x", len(content), sha256.Sum256(content))
}

// TestS18NewLoginReplacesTheSession: a second login in a browser creates a new session and
// ends the former one.
func TestS18NewLoginReplacesTheSession(t *testing.T) {
	w := sharedRedis(t)
	b := w.browser()
	before := len(w.sessionKeys(t))
	b.login(t, "/")
	first := b.session()
	keys := w.sessionKeys(t)
	page, err := b.Visit(t.Context(), w.site+login+"?return_to=/again")
	if err == nil {
		err = b.checkLogin(page, "/again")
	}
	if err != nil {
		t.Fatal(err)
	}
	if b.session() == first {
		t.Error("the second login kept the cookie")
	}
	old := w.rawGet(t, "/old", append([]string{"Cookie: " + sessionCookie + "=" + first}, scriptHeaders...)...)
	if old.Status != http.StatusUnauthorized {
		t.Errorf("former cookie: got %d, want 401", old.Status)
	}
	after := w.sessionKeys(t)
	if len(after) != before+1 || slices.Equal(after, keys) {
		t.Errorf("got %d keys before the logins and %d after, want one more; the former record remains: %v", before, len(after), slices.Equal(after, keys))
	}
	b.checkSession(t)
}

// loginResultSize is the maximum size of the login result in Redis: the sealed secret of a
// new session, which stays as long as the login cookie would have been valid.
const loginResultSize = 16 + 52 + 4 + 32 + 2*28

// sessionKeys returns the keys of the sessions in Redis, sorted.
func (w *world) sessionKeys(t testing.TB) []string {
	t.Helper()
	keys := slices.DeleteFunc(w.redis.Keys(t, "oauth_session:{*}"), func(key string) bool {
		size, _ := w.redis.Do(t, "STRLEN", key).(int64)
		return size <= loginResultSize
	})
	slices.Sort(keys)
	return keys
}

// TestS21LoginSecretsAreRandomAndBound: state, nonce, PKCE challenge and login cookie
// never repeat. The authorization request and the token request follow the specifications.
func TestS21LoginSecretsAreRandomAndBound(t *testing.T) {
	w := shared(t)
	const starts = 200
	seen := map[string]bool{}
	for i := range starts {
		b := w.browser()
		to := b.start(t, "/x")
		q := to.Query()
		values := []string{q.Get("state"), q.Get("nonce"), q.Get("code_challenge")}
		for _, pair := range b.logins() {
			_, value, _ := strings.Cut(pair, "=")
			values = append(values, value)
		}
		for _, v := range values {
			if len(v) < 22 || seen[v] {
				t.Fatalf("start %d: %q is too short or a repetition", i, v)
			}
			seen[v] = true
			// Sealed values begin alike, so compare the ends, too.
			if rest := v[max(0, len(v)-22):]; seen[rest] {
				t.Fatalf("start %d: %q has the same end as a former value", i, v)
			} else {
				seen[rest] = true
			}
		}
		for name, want := range map[string]string{
			"response_type": "code", "code_challenge_method": "S256", "client_id": clientID,
			"scope": "openid profile email offline_access", "redirect_uri": w.site + callback,
		} {
			if got := q[name]; len(got) != 1 || got[0] != want {
				t.Fatalf("got %s %q, want %q", name, got, want)
			}
		}
		if len(q) != 8 {
			t.Errorf("got other parameters in the authorization request: %v", q)
		}
	}

	w.browser().login(t, "/x")
	entry := lastOf(t, w.idp.Log(fakeas.EndpointToken))
	authorization := lastOf(t, w.idp.Log(fakeas.EndpointAuthorize))
	challenge := authorization.Query.Get("code_challenge")
	verifier := entry.Form.Get("code_verifier")
	sum := sha256.Sum256([]byte(verifier))
	if len(verifier) < 43 || len(verifier) > 128 || base64.RawURLEncoding.EncodeToString(sum[:]) != challenge {
		t.Errorf("a verifier of %d characters does not match the challenge", len(verifier))
	}
	if got := entry.Form.Get("redirect_uri"); got != authorization.Query.Get("redirect_uri") {
		t.Errorf("token request: got redirect_uri %q", got)
	}
	if len(entry.Query) != 0 || entry.Form.Has("client_secret") {
		t.Errorf("the token request has a query, or the client secret in the form: %s", entry.URI)
	}
	basic, _ := strings.CutPrefix(entry.Header.Get("Authorization"), "Basic ")
	got, _ := base64.StdEncoding.DecodeString(basic)
	if string(got) != clientID+":"+url.QueryEscape(w.clientSecret) {
		t.Error("the Basic credentials are not form-encoded")
	}
}

func lastOf[T any](t *testing.T, list []T) T {
	t.Helper()
	if len(list) == 0 {
		t.Fatal("the list is empty")
	}
	return list[len(list)-1]
}

// TestS22LateCallbackStartsANewLogin: a login that took more than ten minutes starts
// again, once, and then succeeds. The browser has dropped the login cookie by its Max-Age.
// Package handler tests with a fake clock that the server checks the time as well.
func TestS22LateCallbackStartsANewLogin(t *testing.T) {
	w := shared(t)
	b := w.browser()
	resp := b.nav(t, "/late?x=1")
	for _, line := range resp.Header.Values("Set-Cookie") {
		c, err := http.ParseSetCookie(line)
		if err != nil || !strings.HasPrefix(c.Name, loginCookie) || c.MaxAge <= 0 || c.MaxAge > 600 {
			t.Errorf("got Max-Age %d, %v, want 1 to 600", c.MaxAge, err)
		}
	}
	answer := b.approve(t, resp.Location())
	b.Jar = new(client.Jar)
	calls := w.tokenRequests()
	again := b.nav(t, answer.String())
	if n := w.tokenRequests(); n != calls {
		t.Errorf("got %d token requests, want none", n-calls)
	}
	if !w.isAuthorization(again.Location()) {
		t.Fatalf("got %v, want a new login", again)
	}
	page, err := b.Visit(t.Context(), again.Location().String())
	if err == nil {
		err = b.checkLogin(page, "/late?x=1")
	}
	if err != nil {
		t.Error(err)
	}
}

// TestS24CookiesAreNotInterchangeable: no cookie works in place of another, and all
// contents are sealed.
func TestS24CookiesAreNotInterchangeable(t *testing.T) {
	w := shared(t)
	b := w.browser()
	to := b.start(t, "/wanted-page?x=1")
	name, attempt, _ := strings.Cut(b.logins()[0], "=")
	resp := w.rawGet(t, "/x", append([]string{"Cookie: " + sessionCookie + "=" + attempt}, scriptHeaders...)...)
	if resp.Status != http.StatusUnauthorized {
		t.Errorf("login cookie as session cookie: got %d, want 401", resp.Status)
	}
	answer := b.approve(t, to)
	if resp := b.nav(t, answer.String()); resp.Status != http.StatusSeeOther {
		t.Fatalf("login: got %v, want 303", resp)
	}
	verifier := lastOf(t, w.idp.Log(fakeas.EndpointToken)).Form.Get("code_verifier")
	calls := w.tokenRequests()
	for _, value := range []string{b.session(), to.Query().Get("state"), attempt[:len(attempt)-1], attempt + attempt} {
		fresh := w.browser()
		state := fresh.start(t, "/x").Query().Get("state")
		cookie, _, _ := strings.Cut(fresh.logins()[0], "=")
		resp := w.rawGet(t, callback+"?code=x&state="+state, append([]string{"Cookie: " + cookie + "=" + value}, navigationHeaders...)...)
		if resp.Status != http.StatusFound || w.tokenRequests() != calls {
			t.Errorf("other value as login cookie: got %d and %d token requests, want a new login and none", resp.Status, w.tokenRequests()-calls)
		}
	}
	for kind, value := range map[string]string{"login cookie": attempt, "state": to.Query().Get("state"), "session cookie": b.session()} {
		raw, err := base64.RawURLEncoding.DecodeString(value)
		if err != nil {
			t.Errorf("the %s is not base64url: %v", kind, err)
		}
		for _, readable := range []string{"wanted-page", to.Query().Get("nonce"), verifier, "\":\""} { // a shorter text might occur by chance
			if strings.Contains(string(raw), readable) || strings.Contains(value, readable) {
				t.Errorf("the %s %s… is readable: it contains %.10q", kind, name, readable)
			}
		}
	}
}
