package fakeas

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"time"
)

// Discovery selects the metadata documents that the server offers.
type Discovery string

// The values of Knobs.Discovery.
const (
	DiscoveryOpenID Discovery = "openid" // OpenID Connect Discovery only
	DiscoveryOAuth  Discovery = "oauth"  // RFC 8414 only
	DiscoveryBoth   Discovery = "both"
	DiscoveryNone   Discovery = "none"
)

// Rotation is the server's rule for a refresh token after its redemption.
type Rotation string

// The values of Knobs.Rotation.
const (
	// RotateNever keeps the refresh token; refresh answers carry none.
	RotateNever Rotation = "never"
	// RotateSame keeps the refresh token; refresh answers repeat it.
	RotateSame Rotation = "same"
	// RotateStrict makes each refresh token single use.
	RotateStrict Rotation = "strict"
	// RotateOverlap accepts the newest token and the Knobs.Overlap tokens before it.
	RotateOverlap Rotation = "overlap"
	// RotateGrace repeats the answer of the first redemption for Knobs.Grace
	// after it.
	RotateGrace Rotation = "grace"
)

// RefreshPolicy selects the logins that get a refresh token.
type RefreshPolicy string

// The values of Knobs.RefreshTokens.
const (
	RefreshAlways  RefreshPolicy = "always"
	RefreshNone    RefreshPolicy = "none"
	RefreshOffline RefreshPolicy = "offline_access" // logins with this scope
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

// Knobs are the settings of a server. DefaultKnobs gives a correct server. In
// JSON, durations are strings such as "1.5s".
type Knobs struct {
	// Discovery selects the metadata documents, Metadata edits them.
	Discovery Discovery `json:"discovery"`
	Metadata  Edit      `json:"metadata"`
	// Issuer replaces the issuer in metadata and tokens. The endpoints keep
	// their URLs. Empty: the server's URL.
	Issuer string `json:"issuer"`

	// IssParameter adds iss to authorization responses and announces it in the
	// metadata (RFC 9207).
	IssParameter bool `json:"iss_parameter"`
	// Callback edits the parameters of authorization responses.
	Callback Edit `json:"callback"`
	// FormPost answers every authorization request with response_mode
	// form_post, even if the client did not ask for it.
	FormPost bool `json:"form_post"`
	// PromptNone is the error code for prompt=none. Empty: it logs in.
	PromptNone string `json:"prompt_none"`

	// AccessTokenLifetime is also the value of expires_in.
	AccessTokenLifetime time.Duration `json:"access_token_lifetime"`
	AccessTokenFormat   TokenFormat   `json:"access_token_format"`
	// AccessTokenSize pads access tokens to at least this many bytes.
	AccessTokenSize int `json:"access_token_size"`
	// IDTokenLifetime is independent of the access token's.
	IDTokenLifetime time.Duration `json:"id_token_lifetime"`
	// SigningAlg is RS256, PS256, ES256 or EdDSA.
	SigningAlg string `json:"signing_alg"`

	RefreshTokens RefreshPolicy `json:"refresh_tokens"`
	// RefreshTokenNeeds lists the authorization request parameters that a login
	// must have to get a refresh token, such as access_type=offline.
	RefreshTokenNeeds map[string]string `json:"refresh_token_needs"`
	// RefreshTokenLifetime limits refresh tokens; zero: no limit. It starts at
	// the login, or, if RefreshTokenRolling is set, at the last refresh.
	RefreshTokenLifetime time.Duration `json:"refresh_token_lifetime"`
	RefreshTokenRolling  bool          `json:"refresh_token_rolling"`

	Rotation Rotation `json:"rotation"`
	// Overlap is the number of older tokens that RotateOverlap accepts;
	// OverlapFor, if not zero, also limits the time since their redemption.
	Overlap    int           `json:"overlap"`
	OverlapFor time.Duration `json:"overlap_for"`
	Grace      time.Duration `json:"grace"`
	// ReuseRevokes revokes the refresh and access tokens of the whole family
	// when a client sends a spent refresh token. Without it, the server only
	// refuses the request.
	ReuseRevokes bool `json:"reuse_revokes"`
	// RefreshKillsAccessToken revokes older access tokens at each refresh.
	RefreshKillsAccessToken bool `json:"refresh_kills_access_token"`
	// OneFamilyPerUser revokes a user's earlier refresh tokens at a new login.
	OneFamilyPerUser bool `json:"one_family_per_user"`

	// DeadTokenError is the error code for a dead refresh token, with status
	// 400. Empty: invalid_grant. "-": an empty body.
	DeadTokenError string `json:"dead_token_error"`
	// ConsumeOnFailedAuth spends the code or refresh token of a request even if
	// client authentication fails.
	ConsumeOnFailedAuth bool `json:"consume_on_failed_auth"`
	// RefreshScope and RefreshAudience are the rules for scope and audience in
	// refresh requests.
	RefreshScope    Presence `json:"refresh_scope"`
	RefreshAudience Presence `json:"refresh_audience"`
	// RefreshSubject, if set, is the sub of ID tokens from refreshes.
	RefreshSubject string `json:"refresh_subject"`

	// LatencyBefore delays token requests before the server commits the grant,
	// LatencyAfter after it. The server commits even if the client disconnects.
	LatencyBefore time.Duration `json:"latency_before"`
	LatencyAfter  time.Duration `json:"latency_after"`

	// LoginAnswer and RefreshAnswer edit successful token answers. Mutate then
	// changes the answer to the given grant.
	LoginAnswer   Edit                                      `json:"login_answer"`
	RefreshAnswer Edit                                      `json:"refresh_answer"`
	Mutate        func(grant string, answer map[string]any) `json:"-"`
	// LoginIDToken and RefreshIDToken edit ID tokens.
	LoginIDToken   TokenEdit `json:"login_id_token"`
	RefreshIDToken TokenEdit `json:"refresh_id_token"`
	// UserInfo edits the UserInfo answer.
	UserInfo Edit `json:"userinfo"`
	// UserInfoFormat FormatJWT signs UserInfo answers; UserInfoToken then edits them.
	UserInfoFormat TokenFormat `json:"userinfo_format"`
	UserInfoToken  TokenEdit   `json:"userinfo_token"`
	// UserInfoPost accepts the access token only in the form of a POST request (RFC
	// 6750, section 2.2).
	UserInfoPost bool `json:"userinfo_post"`
	// GroupsOverage replaces the groups claim by _claim_names and
	// _claim_sources, as Entra ID does with many groups.
	GroupsOverage bool `json:"groups_overage"`

	// ExtraKeys are further members of the JWKS; see OddKeys.
	ExtraKeys []map[string]any `json:"extra_keys"`
	// KeysWithoutID omits kid from the server's own keys in the JWKS. Tokens still
	// have one.
	KeysWithoutID bool `json:"keys_without_id"`
	// FormAnswers sends token answers, also refusals, as forms in place of JSON.
	FormAnswers bool `json:"form_answers"`
	// ClockOffset shifts the times in tokens and headers (iat, exp, auth_time,
	// Date). Token lifetimes do not change.
	ClockOffset time.Duration `json:"clock_offset"`
	// EndSessionNeedsHint refuses logout without id_token_hint.
	EndSessionNeedsHint bool `json:"end_session_needs_hint"`
}

// DefaultKnobs are the settings of a correct, strict server. Refresh tokens are
// single use and reuse revokes the family. Access tokens are opaque and live
// five minutes. ID tokens are signed with ES256: generating an RSA key takes
// up to seconds on a busy machine.
func DefaultKnobs() Knobs {
	return Knobs{
		Discovery:           DiscoveryOpenID,
		AccessTokenLifetime: 5 * time.Minute,
		AccessTokenFormat:   FormatOpaque,
		IDTokenLifetime:     5 * time.Minute,
		SigningAlg:          "ES256",
		RefreshTokens:       RefreshAlways,
		Rotation:            RotateStrict,
		ReuseRevokes:        true,
	}
}

// Set changes knobs. f must not retain its argument.
func (s *Server) Set(f func(*Knobs)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.knobs.clone()
	f(&k)
	s.knobs = k
}

// Knobs returns the current settings.
func (s *Server) Knobs() Knobs {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.knobs.clone()
}

// clone copies the maps and slices, which Set's function may change in place.
// Running requests keep the settings with which they began.
func (k Knobs) clone() Knobs {
	for _, e := range []*Edit{
		&k.Metadata, &k.Callback, &k.LoginAnswer, &k.RefreshAnswer, &k.UserInfo,
		&k.UserInfoToken.Claims, &k.UserInfoToken.Header, &k.LoginIDToken.Claims, &k.LoginIDToken.Header, &k.RefreshIDToken.Claims, &k.RefreshIDToken.Header,
	} {
		*e = Edit{Set: maps.Clone(e.Set), Omit: slices.Clone(e.Omit)}
	}
	k.RefreshTokenNeeds = maps.Clone(k.RefreshTokenNeeds)
	k.ExtraKeys = slices.Clone(k.ExtraKeys)
	return k
}

// Edit changes the members of a JSON object. Set adds or replaces members: nil
// gives null, and a json.RawMessage keeps its spelling. Omit then removes
// members.
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
