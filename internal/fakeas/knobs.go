package fakeas

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"time"
)

// Discovery says which metadata documents are served.
type Discovery string

// The values of Knobs.Discovery.
const (
	DiscoveryOpenID Discovery = "openid" // OpenID Connect Discovery only
	DiscoveryOAuth  Discovery = "oauth"  // RFC 8414 only
	DiscoveryBoth   Discovery = "both"
	DiscoveryNone   Discovery = "none"
)

// Rotation says what a redeemed refresh token is worth afterwards.
type Rotation string

// The values of Knobs.Rotation.
const (
	// RotateNever keeps the refresh token; refresh answers carry none.
	RotateNever Rotation = "never"
	// RotateSame keeps the refresh token; refresh answers repeat it.
	RotateSame Rotation = "same"
	// RotateStrict makes each refresh token single use.
	RotateStrict Rotation = "strict"
	// RotateOverlap accepts the newest token and the Knobs.Overlap before it.
	RotateOverlap Rotation = "overlap"
	// RotateGrace gives the very same answer again for Knobs.Grace after the
	// first redemption.
	RotateGrace Rotation = "grace"
)

// RefreshPolicy says which logins get a refresh token.
type RefreshPolicy string

// The values of Knobs.RefreshTokens.
const (
	RefreshAlways  RefreshPolicy = "always"
	RefreshNone    RefreshPolicy = "none"
	RefreshOffline RefreshPolicy = "offline_access" // only with that scope
)

// Presence is a rule about a request parameter.
type Presence string

// The values of Presence; the zero value is Optional.
const (
	Optional  Presence = ""
	Required  Presence = "required"
	Forbidden Presence = "forbidden"
)

// TokenFormat is the form of access tokens.
type TokenFormat string

// The values of Knobs.AccessTokenFormat.
const (
	FormatOpaque TokenFormat = "opaque"
	FormatJWT    TokenFormat = "jwt" // RFC 9068, typ at+jwt
)

// Knobs is the lasting behaviour of a server. DefaultKnobs gives a well
// behaved one; durations are strings such as "1.5s" in JSON.
type Knobs struct {
	// Discovery says which metadata is served, Metadata edits it.
	Discovery Discovery `json:"discovery"`
	Metadata  Edit      `json:"metadata"`
	// Issuer replaces the issuer in metadata and tokens, while the endpoints
	// stay where they are. Empty: the server's URL.
	Issuer string `json:"issuer"`

	// IssParameter adds iss to authorization responses (RFC 9207) and
	// announces that.
	IssParameter bool `json:"iss_parameter"`
	// Callback edits the parameters of authorization responses.
	Callback Edit `json:"callback"`
	// FormPost answers every authorization request with response_mode
	// form_post, even unasked.
	FormPost bool `json:"form_post"`
	// PromptNone is the error that prompt=none gets. Empty: it logs in.
	PromptNone string `json:"prompt_none"`

	// AccessTokenLifetime is what expires_in says.
	AccessTokenLifetime time.Duration `json:"access_token_lifetime"`
	AccessTokenFormat   TokenFormat   `json:"access_token_format"`
	// AccessTokenSize pads access tokens to at least this many bytes.
	AccessTokenSize int `json:"access_token_size"`
	// IDTokenLifetime is independent of the access token's.
	IDTokenLifetime time.Duration `json:"id_token_lifetime"`
	// SigningAlg is RS256, PS256, ES256 or EdDSA.
	SigningAlg string `json:"signing_alg"`

	RefreshTokens RefreshPolicy `json:"refresh_tokens"`
	// RefreshTokenNeeds lists authorization request parameters without which
	// no refresh token is issued, such as access_type=offline.
	RefreshTokenNeeds map[string]string `json:"refresh_token_needs"`
	// RefreshTokenLifetime limits refresh tokens; zero: no limit. It counts
	// from the login, or, if RefreshTokenRolling, from the last refresh.
	RefreshTokenLifetime time.Duration `json:"refresh_token_lifetime"`
	RefreshTokenRolling  bool          `json:"refresh_token_rolling"`

	Rotation Rotation `json:"rotation"`
	// Overlap is the number of older tokens that RotateOverlap accepts;
	// OverlapFor, if not zero, also limits the time since their redemption.
	Overlap    int           `json:"overlap"`
	OverlapFor time.Duration `json:"overlap_for"`
	Grace      time.Duration `json:"grace"`
	// ReuseRevokes ends the whole family, access tokens too, when a spent
	// refresh token comes back. Otherwise the request is only refused.
	ReuseRevokes bool `json:"reuse_revokes"`
	// RefreshKillsAccessToken ends older access tokens at each refresh.
	RefreshKillsAccessToken bool `json:"refresh_kills_access_token"`
	// OneFamilyPerUser ends a user's earlier refresh tokens at a new login.
	OneFamilyPerUser bool `json:"one_family_per_user"`

	// DeadTokenError is the error code for a dead refresh token, with status
	// 400. Empty: invalid_grant. "-": an empty body.
	DeadTokenError string `json:"dead_token_error"`
	// ConsumeOnFailedAuth spends the code or refresh token of a request whose
	// client authentication fails.
	ConsumeOnFailedAuth bool `json:"consume_on_failed_auth"`
	// RefreshScope and RefreshAudience rule these parameters of refreshes.
	RefreshScope    Presence `json:"refresh_scope"`
	RefreshAudience Presence `json:"refresh_audience"`
	// RefreshSubject, if set, is the sub of ID tokens given at refresh.
	RefreshSubject string `json:"refresh_subject"`

	// LatencyBefore delays token requests before, LatencyAfter after the
	// commit of the grant. A client that hangs up does not stop the commit.
	LatencyBefore time.Duration `json:"latency_before"`
	LatencyAfter  time.Duration `json:"latency_after"`

	// LoginAnswer and RefreshAnswer edit successful token answers, Mutate
	// then gets the answer to the named grant.
	LoginAnswer   Edit                                      `json:"login_answer"`
	RefreshAnswer Edit                                      `json:"refresh_answer"`
	Mutate        func(grant string, answer map[string]any) `json:"-"`
	// LoginIDToken and RefreshIDToken spoil ID tokens.
	LoginIDToken   TokenEdit `json:"login_id_token"`
	RefreshIDToken TokenEdit `json:"refresh_id_token"`
	// UserInfo edits the UserInfo answer.
	UserInfo Edit `json:"userinfo"`
	// GroupsOverage replaces the groups claim by _claim_names and
	// _claim_sources, as Entra ID does with many groups.
	GroupsOverage bool `json:"groups_overage"`

	// ExtraKeys are further members of the JWKS; see OddKeys.
	ExtraKeys []map[string]any `json:"extra_keys"`
	// ClockOffset shifts every time the server tells (iat, exp, auth_time,
	// Date), not how long its tokens live.
	ClockOffset time.Duration `json:"clock_offset"`
	// EndSessionNeedsHint refuses logout without id_token_hint.
	EndSessionNeedsHint bool `json:"end_session_needs_hint"`
}

// DefaultKnobs is a well behaved, strict server: single use refresh tokens
// whose reuse ends the family, opaque access tokens of five minutes, RS256.
func DefaultKnobs() Knobs {
	return Knobs{
		Discovery:           DiscoveryOpenID,
		AccessTokenLifetime: 5 * time.Minute,
		AccessTokenFormat:   FormatOpaque,
		IDTokenLifetime:     5 * time.Minute,
		SigningAlg:          "RS256",
		RefreshTokens:       RefreshAlways,
		Rotation:            RotateStrict,
		ReuseRevokes:        true,
	}
}

// Set changes knobs. f must not keep its argument.
func (s *Server) Set(f func(*Knobs)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.knobs.clone()
	f(&k)
	s.knobs = k
}

// Knobs returns the present settings.
func (s *Server) Knobs() Knobs {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.knobs.clone()
}

// clone copies what Set's function may change in place, since running
// requests read from the settings they began with.
func (k Knobs) clone() Knobs {
	for _, e := range []*Edit{
		&k.Metadata, &k.Callback, &k.LoginAnswer, &k.RefreshAnswer, &k.UserInfo,
		&k.LoginIDToken.Claims, &k.LoginIDToken.Header, &k.RefreshIDToken.Claims, &k.RefreshIDToken.Header,
	} {
		*e = Edit{Set: maps.Clone(e.Set), Omit: slices.Clone(e.Omit)}
	}
	k.RefreshTokenNeeds = maps.Clone(k.RefreshTokenNeeds)
	k.ExtraKeys = slices.Clone(k.ExtraKeys)
	return k
}

// Edit changes the members of a JSON object: Set adds or replaces (nil gives
// null, a json.RawMessage is sent as it is spelled), then Omit removes.
type Edit struct {
	Set  map[string]any `json:"set,omitempty"`
	Omit []string       `json:"omit,omitempty"`
}

func (e Edit) apply(m map[string]any) {
	maps.Copy(m, e.Set)
	for _, name := range e.Omit {
		delete(m, name)
	}
}

// UnmarshalJSON keeps the spelling of the values: 3600.0 stays 3600.0.
func (e *Edit) UnmarshalJSON(data []byte) error {
	var raw struct {
		Set  map[string]json.RawMessage `json:"set"`
		Omit []string                   `json:"omit"`
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&raw); err != nil {
		return err
	}
	*e = Edit{Omit: raw.Omit}
	for name, value := range raw.Set {
		if e.Set == nil {
			e.Set = map[string]any{}
		}
		e.Set[name] = value
	}
	return nil
}
