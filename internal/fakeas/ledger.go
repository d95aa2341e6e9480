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

// Issued is the ledger's line about one code or token.
type Issued struct {
	Kind  Kind   `json:"kind"`
	Value string `json:"value"`
	// Family is the login it descends from; ID tokens carry it as sid.
	Family   string `json:"family"`
	User     string `json:"user"`
	ClientID string `json:"client_id"`
	// Generation counts the refresh tokens of a family from 1.
	Generation int       `json:"generation,omitempty"`
	IssuedAt   time.Time `json:"issued_at"`
	// Expires is zero for what lives without limit.
	Expires time.Time `json:"expires,omitzero"`
	// Presented counts how often a code or refresh token came back, Redeemed
	// how often it was exchanged for something.
	Presented int  `json:"presented,omitempty"`
	Redeemed  int  `json:"redeemed,omitempty"`
	Revoked   bool `json:"revoked,omitempty"`
}

// secret is an issued value with what the server needs to honour it.
type secret struct {
	Issued
	family *family
	// redeemedAt is when it was last exchanged, and replay the answer then.
	redeemedAt time.Time
	replay     []byte
	// code holds what a code was issued for.
	code *codeRequest
}

// family is one login and everything that came of it.
type family struct {
	id       string
	client   Client
	user     string
	scope    []string
	nonce    string
	audience []string
	acr      string
	authTime time.Time
	// refreshable says whether the login gets refresh tokens at all.
	refreshable bool
	// generation is that of the newest refresh token.
	generation int
	// refreshEnds is when the family's refresh tokens end, zero for never.
	refreshEnds time.Time
	// running counts refreshes under way, peak the most there ever were.
	running, peak int
}

// ledger holds everything that was issued. Its user holds Server.mu.
type ledger struct {
	secrets  map[string]*secret
	order    []*secret
	families map[string]*family
	// verifiers are the PKCE verifiers that clients sent.
	verifiers []string
	// logoutTokens are those that were made, good or not.
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

// find returns the live or dead secret of a kind, or nil.
func (l *ledger) find(kind Kind, value string) *secret {
	if s := l.secrets[value]; s != nil && s.Kind == kind {
		return s
	}
	return nil
}

// revoke ends what a family holds of the given kinds.
func (l *ledger) revoke(f *family, kinds ...Kind) {
	for _, s := range l.order {
		if s.family == f && slices.Contains(kinds, s.Kind) {
			s.Revoked = true
		}
	}
}

func (s *secret) expired() bool { return !s.Expires.IsZero() && !time.Now().Before(s.Expires) }

// Tokens lists all codes and tokens in the order they were issued.
func (s *Server) Tokens() []Issued {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Issued, len(s.ledger.order))
	for i, t := range s.ledger.order {
		all[i] = t.Issued
	}
	return all
}

// Secrets lists every value that must not show up in logs, answers to
// browsers or stores: codes, tokens, logout tokens, and the PKCE verifiers that
// clients sent.
func (s *Server) Secrets() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := slices.Concat(s.ledger.verifiers, s.ledger.logoutTokens)
	for _, t := range s.ledger.order {
		all = append(all, t.Value)
	}
	return all
}

// ValidAccessToken says whose access token this is, if it is good right now:
// issued here, not expired, not revoked.
func (s *Server) ValidAccessToken(token string) (user string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.ledger.find(KindAccess, token)
	if t == nil || t.Revoked || t.expired() {
		return "", false
	}
	return t.User, true
}

// Revoke ends a token before its time: an access token alone, a refresh token
// together with all refresh and access tokens of its family. It reports
// whether there was such a token.
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
