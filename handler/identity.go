package handler

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/oauth-session/caddy-oauth-session/oauth"
	"github.com/oauth-session/caddy-oauth-session/session/keeper"
)

// maxClaims bounds the claims of a user, in bytes of JSON. They are part of the
// record that every request reads.
const maxClaims = 64 << 10

// protocolClaims describe a token and not the user. They are not stored. The sources of
// distributed claims have access tokens.
var protocolClaims = []string{claimSources, "iss", "aud", "azp", "exp", "iat", "nbf", "nonce", "at_hash", "c_hash", "s_hash", "jti", "sid", "rat"}

// The claims that name other sources of claims (OpenID Connect Core, section 5.6.2).
const (
	claimNames   = "_claim_names"
	claimSources = "_claim_sources"
)

// authenticationClaims describe how and when the user has authenticated.
// Servers leave them out of refreshed ID tokens (OpenID Connect Core, section
// 12.2), although they remain true until the user authenticates again.
var authenticationClaims = []string{"auth_time", "acr", "amr"}

// identify returns the identity of a login. It comes from the ID token with OpenID
// Connect, and from the UserInfo endpoint if Config.UserInfo is set. Both may leave
// claims to other sources. What the server itself says takes precedence over these.
func (h *Handler) identify(ctx context.Context, t *oauth.TokenResponse, want oauth.IDTokenExpectation) (keeper.Identity, error) {
	var identity keeper.Identity
	claims, atLogin, sourced := map[string]json.RawMessage{}, map[string]json.RawMessage{}, map[string]json.RawMessage{}
	if h.Client.OpenID() {
		if t.IDToken == "" {
			return identity, errors.New("the authorization server sent no ID token although scope has openid")
		}
		idToken, err := h.Client.VerifyIDToken(ctx, t.IDToken, want)
		if err != nil {
			return identity, fmt.Errorf("checking ID token: %w", err)
		}
		identity.Subject, identity.SID, identity.Nonce, identity.IssuedAt = idToken.Subject, idToken.SessionID, want.Nonce, idToken.IssuedAt
		identity.SessionExpiry = idToken.SessionExpiry
		maps.Copy(claims, idToken.Claims)
		h.addSourced(ctx, claims, sourced)
	}
	if h.UserInfo {
		info, err := h.Client.UserInfo(ctx, t.AccessToken, identity.Subject)
		if err != nil {
			return identity, fmt.Errorf("asking for UserInfo: %w", err)
		}
		if err := json.Unmarshal(info["sub"], &identity.Subject); err != nil {
			return identity, fmt.Errorf("reading sub of UserInfo: %w", err)
		}
		h.addSourced(ctx, info, sourced)
		maps.Copy(claims, info)
		atLogin = info
	}
	h.dropOversized(claims, sourced)
	for _, set := range []map[string]json.RawMessage{claims, atLogin} {
		maps.Copy(set, sourced)
		nameMissing(set)
	}
	var err error
	if identity.UserInfo, err = encodeClaims(atLogin); err != nil {
		return identity, err
	}
	identity.Claims, err = encodeClaims(claims)
	return identity, err
}

// maxLoggedClaims bounds the names of missing claims in one log line.
const maxLoggedClaims = 10

// addSourced reads the claims that an ID token or a UserInfo answer leaves to other
// sources, and adds them to sourced.
func (h *Handler) addSourced(ctx context.Context, claims, sourced map[string]json.RawMessage) {
	found, missing := h.Client.SourcedClaims(ctx, claims)
	for _, m := range missing {
		h.warnOfMissingClaims(m.Names, m.Err)
	}
	maps.Copy(sourced, found)
}

func (h *Handler) warnOfMissingClaims(names []string, err error) {
	if h.logLimiter.allow("claim source") {
		h.Logger.Warn("claims of a user are missing: another source has them, and it was not read",
			zap.Strings("claims", names[:min(len(names), maxLoggedClaims)]), zap.Error(err))
	}
}

// dropOversized removes the sourced claims that the server states itself, and those for
// which maxClaims leaves no room: a source must not make the login fail. Those of the
// server alone decide whether it does.
func (h *Handler) dropOversized(claims, sourced map[string]json.RawMessage) {
	maps.DeleteFunc(sourced, func(name string, _ json.RawMessage) bool { _, stated := claims[name]; return stated })
	own, err := encodeClaims(maps.Clone(claims))
	if err != nil {
		return
	}
	size := len(own)
	var dropped []string
	for _, name := range slices.Sorted(maps.Keys(sourced)) {
		member, err := json.Marshal(map[string]json.RawMessage{name: sourced[name]})
		if err != nil || size+len(member) > maxClaims {
			delete(sourced, name)
			dropped = append(dropped, name)
			continue
		}
		size += len(member)
	}
	if dropped != nil {
		h.warnOfMissingClaims(dropped, fmt.Errorf("they do not fit into the %d bytes for the claims of a user", maxClaims))
	}
}

// nameMissing leaves in _claim_names only the claims that are still missing.
func nameMissing(claims map[string]json.RawMessage) {
	var names map[string]json.RawMessage
	if json.Unmarshal(claims[claimNames], &names) != nil {
		return
	}
	all := len(names)
	maps.DeleteFunc(names, func(name string, _ json.RawMessage) bool { _, ok := claims[name]; return ok })
	if len(names) == all {
		return
	}
	delete(claims, claimNames)
	if b, err := json.Marshal(names); err == nil && len(names) > 0 {
		claims[claimNames] = b
	}
}

// claimSets has the claims of a session before a refresh: all claims that the app
// sees, those of the ID token, and those of UserInfo.
type claimSets struct{ all, idToken, userInfo map[string]json.RawMessage }

// storedClaims reads the claims of a session. Earlier releases did not store the
// claims of UserInfo separately. For their sessions, the claims that differ from
// the ID token are taken as those of UserInfo.
func storedClaims(current keeper.Identity, userInfo bool) (claimSets, error) {
	var kept claimSets
	var err error
	if kept.all, err = decodeClaims(current.Claims); err != nil {
		return kept, err
	}
	if kept.userInfo, err = decodeClaims(current.UserInfo); err != nil {
		return kept, err
	}
	kept.idToken = decodePayload(current.IDToken)
	if userInfo && len(current.UserInfo) == 0 {
		for name, value := range kept.all {
			if !bytes.Equal(value, kept.idToken[name]) && !slices.Contains(authenticationClaims, name) {
				kept.userInfo[name] = value
			}
		}
	}
	return kept, nil
}

// decodePayload returns the claims of an ID token that was verified before. It
// returns none if the token cannot be decoded.
func decodePayload(idToken string) (claims map[string]json.RawMessage) {
	_, rest, _ := strings.Cut(idToken, ".")
	encoded, _, _ := strings.Cut(rest, ".")
	text, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil || json.Unmarshal(text, &claims) != nil {
		return nil
	}
	return claims
}

// afterRefresh returns the claims after a refresh, all of them and those of
// UserInfo.
//
// They come from the new ID token and from UserInfo, which was asked at the login.
// If both have a claim, that of UserInfo counts until the claim in the ID token
// changes. The claims about the authentication are kept until a new auth_time shows
// that the user has authenticated again.
func (kept claimSets) afterRefresh(idToken map[string]json.RawMessage) (all, userInfo map[string]json.RawMessage) {
	all, userInfo = maps.Clone(idToken), maps.Clone(kept.userInfo)
	maps.DeleteFunc(userInfo, func(name string, _ json.RawMessage) bool {
		value, ok := idToken[name]
		return ok && !bytes.Equal(value, kept.idToken[name])
	})
	maps.Copy(all, userInfo)
	at := authTime(all)
	if at.IsZero() {
		delete(all, "auth_time") // of a wrong type, or 0
	}
	if at.IsZero() || at.Equal(authTime(kept.all)) {
		for _, name := range authenticationClaims {
			if value, known := kept.all[name]; known && (all[name] == nil || string(all[name]) == "null") {
				all[name] = value
			}
		}
	}
	return all, userInfo
}

func decodeClaims(text json.RawMessage) (map[string]json.RawMessage, error) {
	claims := map[string]json.RawMessage{}
	if len(text) == 0 {
		return claims, nil
	}
	if err := json.Unmarshal(text, &claims); err != nil || claims == nil {
		return nil, errors.New("the claims that were kept cannot be read")
	}
	return claims, nil
}

// encodeClaims encodes the claims about the user as JSON, without protocolClaims.
func encodeClaims(claims map[string]json.RawMessage) (json.RawMessage, error) {
	maps.DeleteFunc(claims, func(name string, _ json.RawMessage) bool { return slices.Contains(protocolClaims, name) })
	if len(claims) == 0 {
		return nil, nil
	}
	b, err := json.Marshal(claims)
	if err != nil {
		return nil, fmt.Errorf("keeping claims: %w", err)
	}
	if len(b) > maxClaims {
		return nil, fmt.Errorf("the user's claims take %d bytes, the limit is %d: ask the authorization server for fewer", len(b), maxClaims)
	}
	return b, nil
}
