package fakeas

import (
	"crypto/rand"
	"encoding/hex"
	"slices"
	"time"
)

// Kind is the kind of a secret.
type Kind string

// The kinds of secrets in the ledger.
const (
	KindCode    Kind = "code"
	KindAccess  Kind = "access_token"
	KindRefresh Kind = "refresh_token"
	KindID      Kind = "id_token"
)

// Issued is the ledger's entry for one code or token.
type Issued struct {
	Kind  Kind   `json:"kind"`
	Value string `json:"value"`
	// Family identifies the login; it is the sid of ID tokens.
	Family   string `json:"family"`
	User     string `json:"user"`
	ClientID string `json:"client_id"`
	// Generation counts the refresh tokens of a family from 1.
	Generation int       `json:"generation,omitempty"`
	IssuedAt   time.Time `json:"issued_at"`
	// Expires is zero if the token never expires.
	Expires time.Time `json:"expires,omitzero"`
	// Presented counts the requests with a code or refresh token, Redeemed its
	// successful redemptions.
	Presented int  `json:"presented,omitempty"`
	Redeemed  int  `json:"redeemed,omitempty"`
	Revoked   bool `json:"revoked,omitempty"`
}

// secret is an issued code or token with its state on the server.
type secret struct {
	Issued
	family *family
	// redeemedAt is the time of the first redemption. lastAnswer is the answer
	// of the last one.
	redeemedAt time.Time
	lastAnswer []byte
	// code is the request of a code, nil for tokens.
	code *codeRequest
}

// family is one login and all tokens that descend from it.
type family struct {
	id       string
	client   Client
	user     string
	scope    []string
	nonce    string
	audience []string
	acr      string
	authTime time.Time
	// refreshable is set if the login gets refresh tokens.
	refreshable bool
	// generation is that of the newest refresh token.
	generation int
	// refreshExpires is the expiry of the family's refresh tokens, zero for never.
	refreshExpires time.Time
	// running is the number of refresh requests in progress, peak its maximum
	// so far.
	running, peak int
}

// ledger holds all codes and tokens. Callers hold Server.mu.
type ledger struct {
	secrets  map[string]*secret
	order    []*secret
	families map[string]*family
	// verifiers are the PKCE verifiers of token requests.
	verifiers []string
	// logoutTokens are the logout tokens, valid or not.
	logoutTokens []string
	counts       Stats
}

func newLedger() ledger {
	return ledger{secrets: map[string]*secret{}, families: map[string]*family{}, counts: newStats()}
}

func canary(prefix string) string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand.Read ends the program instead
	return prefix + hex.EncodeToString(b[:])
}

func (l *ledger) add(kind Kind, value string, f *family, expires time.Time) *secret {
	s := &secret{family: f, Issued: Issued{
		Kind: kind, Value: value, Family: f.id, User: f.user, ClientID: f.client.ID,
		IssuedAt: time.Now(), Expires: expires,
	}}
	l.secrets[value] = s
	l.order = append(l.order, s)
	return s
}

// find returns the secret with the kind and value, valid or not, or nil.
func (l *ledger) find(kind Kind, value string) *secret {
	if s := l.secrets[value]; s != nil && s.Kind == kind {
		return s
	}
	return nil
}

// revoke revokes a family's secrets of the given kinds.
func (l *ledger) revoke(f *family, kinds ...Kind) {
	for _, s := range l.order {
		if s.family == f && slices.Contains(kinds, s.Kind) {
			s.Revoked = true
		}
	}
}

func (s *secret) expired() bool { return !s.Expires.IsZero() && !time.Now().Before(s.Expires) }

// Tokens lists all codes and tokens in the order of their issue.
func (s *Server) Tokens() []Issued {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Issued, len(s.ledger.order))
	for i, t := range s.ledger.order {
		all[i] = t.Issued
	}
	return all
}

// Secrets lists the values that must not appear in logs, stores or answers to
// browsers: codes, tokens, logout tokens and the PKCE verifiers of clients.
func (s *Server) Secrets() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := slices.Concat(s.ledger.verifiers, s.ledger.logoutTokens)
	for _, t := range s.ledger.order {
		all = append(all, t.Value)
	}
	return all
}

// ValidAccessToken returns the user of an access token. ok is false unless the
// server issued the token and it is neither expired nor revoked.
func (s *Server) ValidAccessToken(token string) (user string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.ledger.find(KindAccess, token)
	if t == nil || t.Revoked || t.expired() {
		return "", false
	}
	return t.User, true
}

// Revoke revokes a token: an access token alone, a refresh token together with
// all refresh and access tokens of its family. It reports whether the token
// exists.
func (s *Server) Revoke(token string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.ledger.find(KindAccess, token); t != nil {
		t.Revoked = true
		return true
	}
	if t := s.ledger.find(KindRefresh, token); t != nil {
		s.ledger.revoke(t.family, KindRefresh, KindAccess)
		return true
	}
	return false
}
