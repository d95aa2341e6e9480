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

// A tokenUse is a refresh request with a certain refresh token.
type tokenUse struct {
	instance int
	at       time.Time
}

// A tokenLog records the refresh requests with each refresh token.
type tokenLog struct {
	mu   sync.Mutex
	uses map[string][]tokenUse // by token
}

// record returns a handler for one instance that records refresh tokens and calls the authorization server.
func (b *tokenLog) record(instance int, server http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err == nil && r.PostForm.Has("refresh_token") {
			token := r.PostForm.Get("refresh_token")
			b.mu.Lock()
			b.uses[token] = append(b.uses[token], tokenUse{instance, time.Now()})
			b.mu.Unlock()
		}
		server.ServeHTTP(w, r)
	})
}

// A partition is a time in which one instance did not reach the store.
type partition struct {
	instance   int
	start, end time.Time
}

// TestPartitions runs each instance in its own network namespace and cuts one after the other off from Redis: packets are
// lost without an error. The isolated instance answers 503, and the others serve all requests.
//
// One loss is unavoidable: an instance has sent a refresh token and is cut off before it can write the new one. For the
// other instances it looks like a dead one, and one of them takes over and sends the spent token.
func TestPartitions(t *testing.T) {
	t.Parallel()
	lan := netns.NewSwitch(t)
	l, log := newLoad(emptyFleet(t)), &tokenLog{uses: map[string][]tokenUse{}}
	hosts := l.startInNamespaces(t, lan, log)
	l.start(t)
	var partitions []partition
	for i, host := range hosts {
		before := l.unavailable()
		p := partition{instance: i, start: time.Now()}
		lan.Cut(t, host)
		l.continueFor(t, "cut off", 5*time.Second)
		eventually(t, fmt.Sprintf("answer 503 of the isolated instance %d", i), func() bool { return l.unavailable()[i] > before[i] })
		lan.Heal(t, host)
		l.awaitRefreshed(t)
		p.end = time.Now()
		partitions = append(partitions, p)
		for k, n := range l.unavailable() {
			if k != i && n != before[k] {
				t.Errorf("got %d answers 503 of instance %d while instance %d was cut off, want none", n-before[k], k, i)
			}
		}
	}
	l.awaitRecovery(t)
	l.checkReuse(t, log, partitions)
}

// startInNamespaces starts Redis in the namespace of the switch and each instance in its own namespace. Only the traffic to
// Redis uses the switch. The authorization server, the app and the visitors use the loopback interface of each namespace.
func (l *load) startInNamespaces(t *testing.T, lan *netns.Switch, log *tokenLog) []*netns.Namespace {
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
	namespaces := map[string]*netns.Namespace{} // by the address of the instance
	key := newKey()
	for i := range fleetSize {
		host := lan.Join(t)
		host.Do(t, func() {
			listener, err := net.Listen("tcp", issuer.Host)
			if err != nil {
				t.Fatal(err)
			}
			serve(t, listener, log.record(i, l.as))
			app := faultproxy.Start(t, l.app.Addr())
			namespaces[l.addNode(t, nodePlan{key: key, store: store, app: app.Addr()}).addr] = host
		})
		hosts = append(hosts, host)
	}
	l.transport.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if host := namespaces[addr]; host != nil {
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
		server.Serve(listener) // returns at Close
	}()
	t.Cleanup(func() {
		server.Close()
		<-done
	})
}

// checkReuse fails the test if a refresh token was sent twice or a session was lost, unless a partition had interrupted the
// refresh.
func (l *load) checkReuse(t *testing.T, log *tokenLog, partitions []partition) {
	t.Helper()
	interrupted := 0
	for token, uses := range log.uses {
		if len(uses) == 1 {
			continue
		}
		if !interruptedBy(uses[0], partitions) || len(uses) > 2 || uses[0].instance == uses[1].instance {
			t.Errorf("the refresh token %s was sent %d times, want once: %v", token, len(uses), uses)
			continue
		}
		interrupted++
	}
	t.Logf("partitions interrupted %d of %d refreshes", interrupted, len(log.uses))
	if len(l.lost) > interrupted {
		t.Errorf("got %d lost sessions, want at most %d", len(l.lost), interrupted)
	}
	for _, err := range l.errs {
		if interrupted == 0 || !errors.Is(err, errSessionLost) {
			t.Error(err)
		}
	}
}

// interruptedBy reports whether a partition may have kept an instance from writing the result of its refresh: the instance
// sent the token during the partition, or up to 5 s before it, when the answer may have been outstanding on a busy machine.
func interruptedBy(use tokenUse, partitions []partition) bool {
	for _, p := range partitions {
		if p.instance == use.instance && use.at.After(p.start.Add(-5*time.Second)) && use.at.Before(p.end) {
			return true
		}
	}
	return false
}
