package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oauth-session/caddy-oauth-session/e2e/faultproxy"
	"github.com/oauth-session/caddy-oauth-session/e2e/netns"
	"github.com/oauth-session/caddy-oauth-session/e2e/redisserver"
)

// A spending is a refresh token on its way from an instance to the authorization server.
type spending struct {
	instance int
	at       time.Time
}

// A ledger notes which instance sent which refresh token.
type ledger struct {
	mu   sync.Mutex
	sent map[string][]spending // by token
}

// record returns the authorization server as one instance reaches it.
func (b *ledger) record(instance int, server http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err == nil && r.PostForm.Has("refresh_token") {
			token := r.PostForm.Get("refresh_token")
			b.mu.Lock()
			b.sent[token] = append(b.sent[token], spending{instance, time.Now()})
			b.mu.Unlock()
		}
		server.ServeHTTP(w, r)
	})
}

// A partition is a time in which one instance did not reach the store.
type partition struct {
	instance   int
	begun, end time.Time
}

// TestPartitions runs each instance in a network namespace of its own and cuts them off from Redis, one after the other, so
// that nothing arrives and nobody is told. Who is cut off answers 503; the others go on as if nothing were.
//
// One thing can be lost, and no protocol saves it: whoever has sent a refresh token and is cut off before the new one is
// written cannot be told from a dead instance, and another one takes over.
func TestPartitions(t *testing.T) {
	t.Parallel()
	lan := netns.NewSwitch(t)
	l, sent := newLoad(emptyFleet(t)), &ledger{sent: map[string][]spending{}}
	hosts := l.spread(t, lan, sent)
	l.begin(t)
	var partitions []partition
	for i, host := range hosts {
		before := l.unavailable()
		p := partition{instance: i, begun: time.Now()}
		lan.Cut(t, host)
		l.during(t, "cut off", 5*time.Second)
		eventually(t, fmt.Sprintf("answer 503 of instance %d, which is cut off", i), func() bool { return l.unavailable()[i] > before[i] })
		lan.Heal(t, host)
		l.awaitRefreshed(t)
		p.end = time.Now()
		partitions = append(partitions, p)
		for k, n := range l.unavailable() {
			if k != i && n != before[k] {
				t.Errorf("instance %d answered %d times 503 while instance %d was cut off", k, n-before[k], i)
			}
		}
	}
	l.settle(t)
	l.account(t, sent, partitions)
}

// spread starts Redis in the namespace of the switch and each instance in its own. Only Redis is reached over the switch:
// the authorization server, the app and the visitors come in at the instances' own loopback interfaces.
func (l *load) spread(t *testing.T, lan *netns.Switch, sent *ledger) []*netns.Namespace {
	t.Helper()
	var redis *redisserver.Server
	lan.Do(t, func() {
		redis = redisserver.Start(t, redisserver.Options{Args: []string{"--bind", "0.0.0.0", "--protected-mode", "no"}})
	})
	store := "redis://" + strings.Replace(redis.Addr, "127.0.0.1", lan.IP, 1)
	issuer, err := url.Parse(l.op.Issuer)
	if err != nil {
		t.Fatal(err)
	}
	var hosts []*netns.Namespace
	at := map[string]*netns.Namespace{} // by the address of the instance
	key := newKey()
	for i := range fleetSize {
		host := lan.Join(t)
		host.Do(t, func() {
			listener, err := net.Listen("tcp", issuer.Host)
			if err != nil {
				t.Fatal(err)
			}
			serve(t, listener, sent.record(i, l.as))
			app := faultproxy.Start(t, l.app.Addr())
			at[l.join(t, key, store, app.Addr()).addr] = host
		})
		hosts = append(hosts, host)
	}
	l.transport.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if host := at[addr]; host != nil {
			return host.Dial(ctx, network, strings.Replace(addr, "localhost", "127.0.0.1", 1))
		}
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
	return hosts
}

// serve serves HTTP until the test ends.
func serve(t *testing.T, listener net.Listener, handler http.Handler) {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: patience}
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.Serve(listener) // returns when it is closed
	}()
	t.Cleanup(func() {
		server.Close()
		<-done
	})
}

// account demands that no session was lost and no refresh token sent twice, except those of who was cut off in between.
func (l *load) account(t *testing.T, sent *ledger, partitions []partition) {
	t.Helper()
	excused := 0
	for token, by := range sent.sent {
		if len(by) == 1 {
			continue
		}
		if !cutOffAfter(by[0], partitions) || len(by) > 2 || by[0].instance == by[1].instance {
			t.Errorf("the refresh token %s was sent %v", token, by)
			continue
		}
		excused++
	}
	t.Logf("%d of %d refreshes were under way when their instance was cut off", excused, len(sent.sent))
	if len(l.lost) > excused {
		t.Errorf("%d visitors had to log in again, want %d at most", len(l.lost), excused)
	}
	for _, err := range l.wrong {
		if excused == 0 || !errors.Is(err, errLoggedOut) {
			t.Error(err)
		}
	}
}

// cutOffAfter reports whether the instance that sent a token was cut off before it could write what it got for it: at the
// time itself, or shortly before the cut, when the answer may have been under way on a busy machine.
func cutOffAfter(s spending, partitions []partition) bool {
	for _, p := range partitions {
		if p.instance == s.instance && s.at.After(p.begun.Add(-5*time.Second)) && s.at.Before(p.end) {
			return true
		}
	}
	return false
}
