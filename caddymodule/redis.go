package caddymodule

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/oauth-session/caddy-oauth-session/session"
	"github.com/oauth-session/caddy-oauth-session/session/redis"
)

func init() {
	caddy.RegisterModule(RedisStore{})
}

// RedisStore keeps sessions in Redis or Valkey. Any number of Caddy instances share
// them. All instances need the same `key`.
type RedisStore struct {
	// The server: `redis://host:port`, `rediss://host:port` for TLS, or `unix:///path`.
	// Several URLs are nodes of a Redis Cluster or, with `sentinel_master`, the Sentinels.
	// Default: `redis://127.0.0.1:6379`.
	URL []string `json:"url,omitempty"`
	// The ACL user. Default: the server's default user.
	Username string `json:"username,omitempty"`
	// The password. The handler expands a placeholder again for each connection, so a
	// rotated file takes effect. Default: none.
	Password string `json:"password,omitempty"`
	// The name of the master at the Sentinels. Default: no Sentinel is used.
	SentinelMaster string `json:"sentinel_master,omitempty"`
	// The ACL user at the Sentinels. Default: their default user.
	SentinelUsername string `json:"sentinel_username,omitempty"`
	// The password at the Sentinels. Default: none.
	SentinelPassword string `json:"sentinel_password,omitempty"`
	// The prefix of all keys. Default: `oauth_session`.
	Prefix string `json:"prefix,omitempty"`
	// How many replicas must acknowledge a write before it counts. With Sentinel, or a
	// cluster with replicas, 1 makes sure that a failover loses no login. Default: 0.
	Replicas int `json:"replicas,omitempty"`
	// Settings for URLs with TLS.
	TLS *RedisTLS `json:"tls,omitempty"`

	config redis.Config
	// authorities has the CA certificates in PEM.
	authorities string
	id          string
}

// RedisTLS has the settings of TLS connections to Redis.
type RedisTLS struct {
	// Files with CA certificates (PEM). Default: those of the system.
	CA []string `json:"ca,omitempty"`
	// A file with the client's certificate (PEM). The handler reads it again for each
	// connection. Default: no client certificate.
	Certificate string `json:"certificate,omitempty"`
	// A file with the key of the client's certificate (PEM).
	Key string `json:"key,omitempty"`
	// The name in the server's certificate. Default: the host of the URL.
	ServerName string `json:"server_name,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (RedisStore) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  storesNamespace + "redis",
		New: func() caddy.Module { return new(RedisStore) },
	}
}

// Provision reads the settings. It opens no connection.
func (s *RedisStore) Provision(ctx caddy.Context) error {
	e := newExpander()
	logger := ctx.Logger()
	s.config = redis.Config{
		URLs:             e.texts("store redis url", s.URL),
		Username:         e.text("store redis username", s.Username),
		Password:         e.secret("store redis password", s.Password, logger),
		SentinelMaster:   e.text("store redis sentinel_master", s.SentinelMaster),
		SentinelUsername: e.text("store redis sentinel_username", s.SentinelUsername),
		SentinelPassword: e.secret("store redis sentinel_password", s.SentinelPassword, logger),
		Prefix:           e.text("store redis prefix", s.Prefix),
		Replicas:         s.Replicas,
	}
	if len(s.config.URLs) == 0 {
		s.config.URLs = []string{"redis://127.0.0.1:6379"}
	}
	s.config.Prefix = cmp.Or(s.config.Prefix, redis.DefaultPrefix)
	if s.Replicas < 0 {
		e.fail(errors.New("store redis replicas: must not be negative"))
	}
	for _, text := range s.config.URLs {
		if u, err := url.Parse(text); err == nil && u.User != nil {
			e.fail(errors.New("store redis url: leave user and password out of it: username <name> and password {file./path} keep them out of the configuration"))
		}
	}
	if s.TLS != nil {
		s.config.TLS, s.authorities = s.TLS.config(e)
	}
	s.id = s.name(e)
	if e.err != nil {
		return e.err
	}
	if err := s.config.Check(); err != nil {
		return fmt.Errorf("store redis: %w", err)
	}
	return nil
}

// config returns the TLS configuration and the CA certificates in PEM. Errors go to e.
func (t *RedisTLS) config(e *expander) (c *tls.Config, authorities string) {
	c = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: e.text("store redis tls server_name", t.ServerName)}
	if len(t.CA) > 0 {
		c.RootCAs = x509.NewCertPool()
		authorities = e.addCertificates(c.RootCAs, "store redis tls ca", e.files("store redis tls ca", t.CA))
	}
	certificate, key := e.file("store redis tls certificate", t.Certificate), e.file("store redis tls key", t.Key)
	if (certificate == "") != (key == "") {
		e.fail(errors.New("store redis tls: certificate and key go together"))
	}
	if certificate != "" {
		load := func() (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(certificate, key)
			if err != nil {
				return nil, fmt.Errorf("store redis tls certificate: %w", err)
			}
			return &pair, nil
		}
		if _, err := load(); err != nil {
			e.fail(err)
		}
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	}
	return c, authorities
}

// idSalt is random, so that an attacker cannot guess a password in the configuration from the
// hash in a store's name.
var idSalt = rand.Text()

// name returns the store's ID: its servers, and a hash of all settings. Equal settings
// have equal names. The name contains no secret.
func (s *RedisStore) name(e *expander) string {
	effective := *s
	effective.URL, effective.Prefix = s.config.URLs, s.config.Prefix
	settings, err := json.Marshal(effective) //nolint:gosec // see idSalt
	if err != nil {
		e.fail(err)
	}
	var hosts []string
	for _, text := range s.config.URLs {
		if u, err := url.Parse(text); err == nil {
			hosts = append(hosts, u.Host+u.Path)
		}
	}
	digest := sha256.Sum256(fmt.Appendf(settings, "%q %q %q %q %q %q", idSalt, s.config.URLs, s.config.Username, s.config.SentinelMaster, s.config.Prefix, s.authorities))
	return fmt.Sprintf("redis:%s#%x", strings.Join(hosts, ","), digest[:6])
}

// StoreID implements StoreModule.
func (s *RedisStore) StoreID() string { return s.id }

// Shared implements StoreModule.
func (*RedisStore) Shared() bool { return true }

// OpenStore implements StoreModule.
func (s *RedisStore) OpenStore() (session.Store, error) { return redis.Open(s.config) }

// UnmarshalCaddyfile sets up the store from Caddyfile tokens. Syntax:
//
//	store redis [<url...>] {
//	    url               <url...>
//	    username          <name>
//	    password          <password>
//	    sentinel_master   <name>
//	    sentinel_username <name>
//	    sentinel_password <password>
//	    prefix            <prefix>
//	    replicas          <n>
//	    tls {
//	        ca          <file...>
//	        certificate <file> <key file>
//	        server_name <name>
//	    }
//	}
func (s *RedisStore) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	s.URL = d.RemainingArgs()
	return parseSubBlock(d, "store redis", map[string]setting{
		"url": {values: several, set: func(v []string) error {
			if len(s.URL) > 0 {
				return d.Errf("store redis url is given twice: write it behind store redis or into the block")
			}
			s.URL = v
			return nil
		}},
		"username":          word(&s.Username),
		"password":          word(&s.Password),
		"sentinel_master":   word(&s.SentinelMaster),
		"sentinel_username": word(&s.SentinelUsername),
		"sentinel_password": word(&s.SentinelPassword),
		"prefix":            word(&s.Prefix),
		"replicas": {values: 1, set: func(v []string) (err error) {
			if s.Replicas, err = strconv.Atoi(v[0]); err != nil || s.Replicas < 1 {
				return d.Errf("store redis replicas '%s' is not a number of replicas: write replicas 1", v[0])
			}
			return nil
		}},
		"tls": {set: func([]string) error {
			s.TLS = new(RedisTLS)
			return s.TLS.unmarshalCaddyfile(d)
		}},
	})
}

func (t *RedisTLS) unmarshalCaddyfile(d *caddyfile.Dispenser) error {
	return parseSubBlock(d, "store redis tls", map[string]setting{
		"ca":          list(&t.CA),
		"certificate": {values: 2, set: func(v []string) error { t.Certificate, t.Key = v[0], v[1]; return nil }},
		"server_name": word(&t.ServerName),
	})
}

// Interface guards
var (
	_ caddy.Provisioner     = (*RedisStore)(nil)
	_ caddyfile.Unmarshaler = (*RedisStore)(nil)
	_ StoreModule           = (*RedisStore)(nil)
)
