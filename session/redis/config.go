package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/oauth-session/caddy-oauth-session/internal/tlskeys"
)

// DefaultPrefix begins the keys when Config.Prefix is empty.
const DefaultPrefix = "oauth_session"

// Time limits of the connections; see the package's documentation for what
// follows from them.
const (
	// dialTimeout limits the connecting, and again the greeting on the new
	// connection.
	dialTimeout = time.Second
	// pingInterval is how long a connection is silent before it is pinged.
	pingInterval = 500 * time.Millisecond
	// silenceLimit is how long the server may take to answer a ping. A slower
	// one loses its connections, and with them all copies.
	silenceLimit = time.Second
	// topologyInterval is how often the Sentinels are asked for the master,
	// besides listening to them: they say it once, and a lost word would bind
	// this process to the old master.
	topologyInterval = 5 * time.Second
)

// Sizes for each connection: there is one to each server, and up to
// replicatedAtOnce more if Config.Replicas is set.
const (
	cacheSize        = 32 << 20
	bufferSize       = 64 << 10
	replicatedAtOnce = 32
)

// Config says where the server is and who we are there.
type Config struct {
	// URLs name the server:
	//
	//	redis://host:6379/0             one server; rediss:// with TLS
	//	unix:///run/redis.sock?db=0     one server, by its socket
	//
	// A server that is a node of a cluster is recognised, and the others are
	// found through it. Several URLs name several nodes, of which one has to
	// answer; or, with SentinelMaster, the Sentinels. They differ in host and
	// port only. The schemes valkey and valkeys do as well. The port is 6379 if
	// none is given, and the database 0, as it has to be in a cluster.
	//
	// A URL may hold user and password (redis://user:password@host). Better
	// places are Username and Password, which are asked again.
	URLs []string

	// SentinelMaster is the name of the master that the Sentinels at URLs watch.
	// Empty: no Sentinels.
	SentinelMaster string

	// Username is the ACL user. Empty: the user "default".
	Username string
	// Password is called for each new connection, so that a password that was
	// changed meanwhile is used. Nil: none. Its errors show up in the errors of
	// the store.
	Password func() (string, error)

	// SentinelUsername and SentinelPassword are what Username and Password are,
	// for the connections to the Sentinels, which get nothing of the former.
	SentinelUsername string
	SentinelPassword func() (string, error)

	// TLS is for the schemes rediss and valkeys, and an error with others. Nil
	// there: the system's certificate authorities. A server is verified by the
	// name it is connected to unless ServerName is set. Certificates or
	// GetClientCertificate make it mutual.
	TLS *tls.Config

	// Prefix begins every key: printable ASCII, without spaces and without
	// {}*?[]\ ", of 64 bytes at most. Empty: DefaultPrefix. Instances with the
	// same prefix share their sessions.
	Prefix string

	// Replicas is how many replicas must have a write before it counts as
	// done; see docs/redis.md. Default 0: the server that took it is enough.
	Replicas int
}

// options returns the settings of the client.
func (c Config) options() (rueidis.ClientOption, error) {
	opt, err := parseURLs(c.URLs)
	if err != nil {
		return opt, err
	}
	if err := c.secure(&opt); err != nil {
		return opt, err
	}
	if err := c.authenticate(&opt); err != nil {
		return opt, err
	}
	opt.ClientName = "oauth_session"
	opt.ClientSetInfo = rueidis.DisableClientSetInfo // a command more for the user to have
	opt.Dialer = net.Dialer{Timeout: dialTimeout, KeepAlive: pingInterval}
	opt.DialCtxFn = dial
	opt.ConnWriteTimeout = silenceLimit
	opt.CacheSizeEachConn = cacheSize
	opt.ReadBufferEachConn = bufferSize
	opt.WriteBufferEachConn = bufferSize
	// One connection to a server, so that pushes and answers come in the order
	// of what happened.
	opt.PipelineMultiplex = -1
	opt.BlockingPoolSize = replicatedAtOnce
	opt.ShuffleInit = true
	opt.DisableRetry = true // [Store.try] does it: bounded, and writes too
	if c.SentinelMaster != "" {
		opt.Sentinel = rueidis.SentinelOption{
			MasterSet:               c.SentinelMaster,
			Dialer:                  net.Dialer{Timeout: dialTimeout, KeepAlive: pingInterval, Resolver: sentinelMark},
			TLSConfig:               opt.TLSConfig,
			ClientName:              opt.ClientName,
			TopologyRefreshInterval: topologyInterval,
		}
	}
	return opt, nil
}

// parseURLs never quotes a URL, nor an error that does: a password with a
// character that should have been escaped ends up in any part of it.
func parseURLs(urls []string) (rueidis.ClientOption, error) {
	if len(urls) == 0 {
		return rueidis.ClientOption{}, errors.New("redis: no url")
	}
	all, err := parseURL(urls[0])
	if err != nil {
		return all, fmt.Errorf("redis: url 1 %w", err)
	}
	for i, u := range urls[1:] {
		next, err := parseURL(u)
		switch {
		case err != nil:
			return all, fmt.Errorf("redis: url %d %w", i+2, err)
		case isSocket(all.InitAddress[0]), isSocket(next.InitAddress[0]):
			return all, errors.New("redis: a socket can only be the only url")
		case next.Username != all.Username, next.Password != all.Password,
			next.SelectDB != all.SelectDB, (next.TLSConfig == nil) != (all.TLSConfig == nil):
			return all, fmt.Errorf("redis: url %d differs from url 1 in more than host and port", i+2)
		}
		all.InitAddress = append(all.InitAddress, next.InitAddress...)
	}
	return all, nil
}

func parseURL(u string) (rueidis.ClientOption, error) {
	malformed := errors.New("is not of the form redis://host:port/db, rediss://host:port/db or unix:///path?db=0")
	_, query, _ := strings.Cut(u, "?")
	if query != "" && !strings.HasPrefix(query, "db=") || strings.ContainsAny(query, "&;") {
		return rueidis.ClientOption{}, errors.New("has parameters other than db")
	}
	opt, err := rueidis.ParseURL(u)
	if err != nil || strings.Contains(u, "#") || opt.SelectDB < 0 {
		return opt, malformed
	}
	if addr := opt.InitAddress[0]; addr == "" || strings.HasPrefix(u, "unix:") && !isSocket(addr) {
		return opt, malformed
	}
	return opt, nil
}

func isSocket(addr string) bool { return strings.HasPrefix(addr, "/") }

// secure sets up TLS.
func (c Config) secure(opt *rueidis.ClientOption) error {
	switch {
	case c.TLS == nil && opt.TLSConfig != nil:
		opt.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	case c.TLS != nil && opt.TLSConfig != nil:
		opt.TLSConfig = c.TLS.Clone()
	case c.TLS != nil:
		return errors.New("redis: TLS settings need a url that begins with rediss://")
	}
	if opt.TLSConfig != nil && opt.TLSConfig.VerifyConnection == nil {
		opt.TLSConfig.VerifyConnection = tlskeys.RefuseWeak
	}
	return nil
}

// authenticate sets up who logs in where.
func (c Config) authenticate(opt *rueidis.ClientOption) error {
	if (opt.Username != "" || opt.Password != "") && (c.Username != "" || c.Password != nil) {
		return errors.New("redis: user and password are given twice: in the url and beside it")
	}
	master := login{user: c.Username, password: c.Password}
	if opt.Username != "" || opt.Password != "" {
		inURL := opt.Password
		master = login{user: opt.Username, password: func() (string, error) { return inURL, nil }}
		opt.Username, opt.Password = "", ""
	}
	sentinel := login{user: c.SentinelUsername, password: c.SentinelPassword}
	opt.AuthCredentialsFn = func(to rueidis.AuthCredentialsContext) (rueidis.AuthCredentials, error) {
		if _, ok := to.Address.(sentinelAddr); ok {
			return sentinel.credentials()
		}
		return master.credentials()
	}
	return nil
}

// login is a user at a server.
type login struct {
	user     string
	password func() (string, error)
}

func (l login) credentials() (rueidis.AuthCredentials, error) {
	if l.password == nil {
		return rueidis.AuthCredentials{Username: l.user}, nil
	}
	password, err := l.password()
	if err != nil {
		return rueidis.AuthCredentials{}, fmt.Errorf("getting the password: %w", err)
	}
	return rueidis.AuthCredentials{Username: l.user, Password: password}, nil
}

// The client asks one function for the credentials of both the server and the
// Sentinels, and tells it the remote address only. So the dialer of the
// Sentinels carries a mark, and what it dials an address of its own type. The
// marked resolver works as the default one does.
var sentinelMark = &net.Resolver{}

type sentinelAddr struct{ net.Addr }

type sentinelConn struct{ net.Conn }

func (c sentinelConn) RemoteAddr() net.Addr { return sentinelAddr{c.Conn.RemoteAddr()} }

// dial connects to a host and port, or to a socket. With TLS, the time limit
// of the dialer includes the handshake.
func dial(ctx context.Context, addr string, dialer *net.Dialer, config *tls.Config) (conn net.Conn, err error) {
	switch {
	case isSocket(addr):
		conn, err = dialer.DialContext(ctx, "unix", addr)
	case config != nil:
		secure := tls.Dialer{NetDialer: dialer, Config: config}
		conn, err = secure.DialContext(ctx, "tcp", addr)
	default:
		conn, err = dialer.DialContext(ctx, "tcp", addr)
	}
	if err == nil && dialer.Resolver == sentinelMark {
		conn = sentinelConn{conn}
	}
	return conn, err
}

// keyspace returns the names of the keys.
func (c Config) keyspace() (keyspace, error) {
	prefix := c.Prefix
	if prefix == "" {
		prefix = DefaultPrefix
	}
	if len(prefix) > 64 || strings.ContainsFunc(prefix, func(r rune) bool {
		return r <= ' ' || r > '~' || strings.ContainsRune(`{}*?[]\"`, r)
	}) {
		return keyspace{}, errors.New(`redis: a prefix has 64 characters at most, of ASCII, without spaces and {}*?[]\"`)
	}
	return newKeyspace(prefix), nil
}

// replicas is Config.Replicas, checked.
func (c Config) replicas() (int64, error) {
	if c.Replicas < 0 || c.Replicas > 16 {
		return 0, errors.New("redis: replicas must be between 0 and 16")
	}
	return int64(c.Replicas), nil
}
