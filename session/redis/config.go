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

// Time limits of the connections. The package's documentation states their
// consequences.
const (
	// dialTimeout limits connecting, and again the greeting on the new connection.
	dialTimeout = time.Second
	// pingInterval is the time without traffic after which a connection is pinged.
	pingInterval = 500 * time.Millisecond
	// pingTimeout limits the answer to a ping. The client closes the connections to a
	// slower server and drops all copies.
	pingTimeout = time.Second
	// topologyInterval is the time between two queries of the Sentinels for the
	// master. The client also subscribes to them, but they publish a switch only
	// once: after a lost message, this process would stay with the old master.
	topologyInterval = 5 * time.Second
)

// Sizes for each connection. Each server has one, and up to replicatedAtOnce more if
// Config.Replicas is set.
const (
	cacheSize        = 32 << 20
	bufferSize       = 64 << 10
	replicatedAtOnce = 32
)

// Config selects the server, the user and the keys.
type Config struct {
	// URLs name the server:
	//
	//	redis://host:6379/0             one server; rediss:// with TLS
	//	unix:///run/redis.sock?db=0     one server, by its socket
	//
	// If the server is a node of a cluster, the client finds the other nodes through
	// it. Several URLs name several nodes, of which at least one must answer, or the
	// Sentinels if SentinelMaster is set. They may differ in host and port only. The
	// schemes valkey and valkeys are accepted, too. The default port is 6379. The
	// default database is 0, the only one of a cluster.
	//
	// A URL may contain user and password (redis://user:password@host). Username and
	// Password are better, because Password is called for each connection.
	URLs []string

	// SentinelMaster is the name of the master that the Sentinels at URLs watch. The
	// default is a connection without Sentinels.
	SentinelMaster string

	// Username is the ACL user. The default is the user "default".
	Username string
	// Password is called for each new connection, so that a changed password is used.
	// If nil, no password is sent. The store's errors wrap its errors.
	Password func() (string, error)

	// SentinelUsername and SentinelPassword are the credentials for the Sentinels. A
	// Sentinel never receives Username or Password.
	SentinelUsername string
	SentinelPassword func() (string, error)

	// TLS has the settings for the schemes rediss and valkeys, and is an error with
	// other schemes. If nil, the system's certificate authorities are used. The
	// server's certificate must have the host name of the URL, or ServerName if that
	// is set. Certificates or GetClientCertificate enable mutual TLS.
	TLS *tls.Config

	// Prefix begins every key: at most 64 bytes of printable ASCII without spaces and
	// without {}*?[]\ ". The default is DefaultPrefix. Instances with the same prefix
	// share their sessions.
	Prefix string

	// Replicas is the number of replicas that must have a write before the store
	// acknowledges it; see docs/redis.md. The default is 0: the master alone.
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
	opt.ClientSetInfo = rueidis.DisableClientSetInfo // saves the user one right
	opt.Dialer = net.Dialer{Timeout: dialTimeout, KeepAlive: pingInterval}
	opt.DialCtxFn = dial
	opt.ConnWriteTimeout = pingTimeout
	opt.CacheSizeEachConn = cacheSize
	opt.ReadBufferEachConn = bufferSize
	opt.WriteBufferEachConn = bufferSize
	// With one connection to a server, pushes and answers arrive in the order in which
	// the server processed the commands.
	opt.PipelineMultiplex = -1
	opt.BlockingPoolSize = replicatedAtOnce
	opt.ShuffleInit = true
	opt.DisableRetry = true // Store.try retries with a time limit, writes as well
	if c.SentinelMaster != "" {
		opt.Sentinel = rueidis.SentinelOption{
			MasterSet:               c.SentinelMaster,
			Dialer:                  net.Dialer{Timeout: dialTimeout, KeepAlive: pingInterval, Resolver: sentinelResolver},
			TLSConfig:               opt.TLSConfig,
			ClientName:              opt.ClientName,
			TopologyRefreshInterval: topologyInterval,
		}
	}
	return opt, nil
}

// parseURLs returns errors that quote neither a URL nor an error about one: if a
// password has unescaped characters, any part of the URL may contain it.
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

// authenticate sets up the credentials for the server and for the Sentinels.
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

// login is a user and a source of its password.
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

// sentinelResolver identifies the dialer for the Sentinels, and resolves like the
// default one. The client calls one function for the credentials of both the server
// and the Sentinels, with the remote address as its only argument. So connections of
// this dialer have an address of the type sentinelAddr.
var sentinelResolver = &net.Resolver{}

type sentinelAddr struct{ net.Addr }

type sentinelConn struct{ net.Conn }

func (c sentinelConn) RemoteAddr() net.Addr { return sentinelAddr{c.Conn.RemoteAddr()} }

// dial connects to a host and port, or to a socket. With TLS, the timeout of the
// dialer includes the handshake.
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
	if err == nil && dialer.Resolver == sentinelResolver {
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

// replicas returns Config.Replicas, or an error if it is out of range.
func (c Config) replicas() (int64, error) {
	if c.Replicas < 0 || c.Replicas > 16 {
		return 0, errors.New("redis: replicas must be between 0 and 16")
	}
	return int64(c.Replicas), nil
}
