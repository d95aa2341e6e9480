package conformance

import (
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// A plan is one test plan of the suite, with the suite's name.
type plan struct {
	name    string
	modules []module
	// options are additional lines of the directive for all modules.
	options string
	// note is a sentence for the page.
	note string
}

// A module is one test module of the suite, with the suite's name.
type module struct {
	name string
	// server says in a few words how the server deviates. The page shows it.
	server string
	end    end
	knobs  func(*fakeas.Knobs)
	// options are additional lines of the directive.
	options string
	// act plays the module. Default: play one login.
	act func(*run)
}

// An end is the expected end of a module. The page shows it.
type end string

// The ends of modules.
const (
	loggedIn       end = "logged in, UserInfo called"
	refused        end = "error page, UserInfo not called"
	refusedLate    end = "error page, UserInfo called"
	notSent        end = "error page, no authorization request"
	refreshed      end = "new tokens"
	sessionEnded   end = "session ended"
	signedOut      end = "signed out, page shown"
	tokenRefused   end = "status 400, session kept"
	sessionsEnded  end = "status 200, session ended"
	skippedByUs    end = "error page, which the suite counts as skipped"
	errorPageShown end = "error page, one authorization request"
)

// defect returns knobs for ID tokens with one defect.
func defect(d fakeas.Defect) func(*fakeas.Knobs) {
	return func(k *fakeas.Knobs) { k.LoginIDToken = fakeas.TokenEdit{Defect: d} }
}

// withoutKeyID returns knobs for ID tokens without kid.
func withoutKeyID(k *fakeas.Knobs) { k.LoginIDToken.Header.Omit = []string{"kid"} }

// basicModules are those of the plans for basic certification.
var basicModules = []module{
	{name: "oidcc-client-test", server: "no deviation", end: loggedIn},
	{name: "oidcc-client-test-invalid-iss", server: "`iss` of another server", end: refused, knobs: defect(fakeas.DefectIssuer)},
	{name: "oidcc-client-test-missing-sub", server: "no `sub`", end: refused, knobs: defect(fakeas.DefectNoSubject)},
	{name: "oidcc-client-test-invalid-aud", server: "`aud` of another client", end: refused, knobs: defect(fakeas.DefectAudience)},
	{name: "oidcc-client-test-missing-iat", server: "no `iat`", end: refused, knobs: defect(fakeas.DefectNoIssuedAt)},
	{name: "oidcc-client-test-kid-absent-single-jwks", server: "no `kid`, one key", end: loggedIn, knobs: withoutKeyID},
	{name: "oidcc-client-test-kid-absent-multiple-jwks", server: "no `kid`, two keys that fit", end: loggedIn, knobs: withoutKeyID, act: loginWithTwoKeys},
	{name: "oidcc-client-test-idtoken-sig-rs256", server: "RS256", end: loggedIn},
	{name: "oidcc-client-test-idtoken-sig-none", server: "`alg` none", end: skippedByUs, knobs: defect(fakeas.DefectNone)},
	{name: "oidcc-client-test-invalid-sig-rs256", server: "wrong signature", end: refused, knobs: defect(fakeas.DefectFlipped)},
	{name: "oidcc-client-test-userinfo-invalid-sub", server: "`sub` of another user in UserInfo", end: refusedLate, knobs: func(k *fakeas.Knobs) {
		k.UserInfo.Set = map[string]any{"sub": "mallory"}
	}},
	{name: "oidcc-client-test-nonce-invalid", server: "another `nonce`", end: refused, knobs: defect(fakeas.DefectNonce)},
	{name: "oidcc-client-test-scope-userinfo-claims", server: "claims for `scope` in UserInfo", end: loggedIn, options: "scope openid profile email", act: loginForClaims},
	{name: "oidcc-client-test-client-secret-basic", server: "client_secret_basic alone", end: loggedIn, act: loginWithBasic},
}

// configModules are those of the plan for configuration certification.
var configModules = []module{
	{name: "oidcc-client-test-discovery-openid-config", server: "no deviation", end: loggedIn, act: loginAfterDiscovery},
	{name: "oidcc-client-test-discovery-jwks-uri-keys", server: "no deviation", end: loggedIn, act: loginAfterDiscovery},
	{name: "oidcc-client-test-discovery-issuer-mismatch", server: "metadata of another issuer", end: notSent, knobs: func(k *fakeas.Knobs) {
		k.Metadata.Set = map[string]any{"issuer": "https://other.example.test"}
	}},
	{name: "oidcc-client-test-idtoken-sig-none", server: "`alg` none", end: skippedByUs, knobs: defect(fakeas.DefectNone)},
	{name: "oidcc-client-test-signing-key-rotation-just-before-signing", server: "new key between code and token", end: loggedIn, act: loginWithNewKeyInBetween},
	{name: "oidcc-client-test-signing-key-rotation", server: "new key between two logins", end: loggedIn, act: loginAfterNewKey},
}

// codeModules are the modules for the code flow that no other plan has.
var codeModules = []module{
	{name: "oidcc-client-test-missing-aud", server: "no `aud`", end: refused, knobs: defect(fakeas.DefectNoAudience)},
	{name: "oidcc-client-test-invalid-sig-es256", server: "ES256, wrong signature", end: refused, knobs: func(k *fakeas.Knobs) {
		k.SigningAlg = "ES256"
		defect(fakeas.DefectFlipped)(k)
	}},
	{name: "oidcc-client-test-invalid-sig-hs256", server: "HS256, wrong signature", end: refused, knobs: defect(fakeas.DefectHMACPEM)},
	{name: "oidcc-client-test-userinfo-bearer-header", server: "token in `Authorization` alone", end: loggedIn, act: loginWithBearerHeader},
	{name: "oidcc-client-test-ignores-unparseable-key-in-jwks", server: "two more keys of unknown types", end: loggedIn, knobs: func(k *fakeas.Knobs) {
		k.ExtraKeys = []map[string]any{{"kty": "AKP", "alg": "ML-DSA-99", "kid": "post-quantum", "pub": "AAAA"}, {"kty": "XYZ", "kid": "made-up"}}
	}},
	{name: "oidcc-client-test-form-post-error", server: "`login_required` for `prompt none`, posted", end: errorPageShown,
		options: "response_mode form_post\nauthorize_param prompt none\nauthorize_param max_age 0", knobs: func(k *fakeas.Knobs) { k.PromptNone = "login_required" }},
}

// plans are all plans, in the order of the page.
var plans = []plan{
	{name: "oidcc-client-basic-certification-test-plan", modules: basicModules},
	{name: "oidcc-client-formpost-basic-certification-test-plan", options: "response_mode form_post", note: "The option is `response_mode form_post`.", modules: basicModules},
	{name: "oidcc-client-config-certification-test-plan", modules: configModules},
	{name: "oidcc-client-refreshtoken-test-plan", options: refreshOptions, modules: []module{
		{name: "oidcc-client-test-refresh-token", server: "no deviation", end: refreshed, act: refresh},
		{name: "oidcc-client-test-refresh-token-invalid-issuer", server: "`iss` of another server in the new ID token", end: sessionEnded, act: refresh, knobs: func(k *fakeas.Knobs) {
			k.RefreshIDToken.Defect = fakeas.DefectIssuer
		}},
		{name: "oidcc-client-test-refresh-token-invalid-sub", server: "`sub` of another user in the new ID token", end: sessionEnded, act: refresh, knobs: func(k *fakeas.Knobs) {
			k.RefreshSubject = "mallory"
		}},
	}},
	frontchannelPlan,
	{name: "oidcc-client-rp-initiated-logout-rp-basic", modules: []module{
		{name: "oidcc-client-test-rp-init-logout", server: "no deviation", end: signedOut, act: signOut("same")},
		{name: "oidcc-client-test-rp-init-logout-other-state", server: "another `state`", end: signedOut, act: signOut("other")},
		{name: "oidcc-client-test-rp-init-logout-no-state", server: "no `state`", end: signedOut, act: signOut("none")},
	}},
	{name: "oidcc-client-back-channel-logout-rp-basic", modules: append(backchannelModules(), wrongAlgorithm)},
	{name: "oidcc-client-test-3rd-party-init-login-test-plan", modules: []module{
		{name: "oidcc-client-test-3rd-party-init-login", server: "link with `iss`, `login_hint` and `target_link_uri`", end: loggedIn, act: loginFromThirdParty},
	}},
	{name: "oidcc-client-test-plan", note: "The modules for the code flow that are in none of the plans above.", modules: append(codeModules[:len(codeModules):len(codeModules)], claimsModules...)},
}

// backchannelModules returns the modules of the plan for back-channel logout.
func backchannelModules() []module {
	const prefix = "oidcc-client-test-rp-backchannel-rpinitlogout"
	const event = "http://schemas.openid.net/event/backchannel-logout"
	claim := func(name string, value any) fakeas.TokenEdit {
		return fakeas.TokenEdit{Claims: fakeas.Edit{Set: map[string]any{name: value}}}
	}
	modules := []module{{name: prefix, server: "no deviation", end: sessionsEnded, act: logOutByToken(fakeas.TokenEdit{})}}
	for _, m := range []struct {
		suffix, server string
		edit           fakeas.TokenEdit
	}{
		{"-alg-none", "`alg` none", fakeas.TokenEdit{Defect: fakeas.DefectNone}},
		{"-no-event", "no `events`", fakeas.TokenEdit{Claims: fakeas.Edit{Omit: []string{"events"}}}},
		{"-with-nonce", "with `nonce`", claim("nonce", "any")},
		{"-wrong-aud", "`aud` of another client", fakeas.TokenEdit{Defect: fakeas.DefectAudience}},
		{"-wrong-event", "another event", claim("events", map[string]any{event + "x": map[string]any{}})},
		{"-wrong-iss", "`iss` of another server", fakeas.TokenEdit{Defect: fakeas.DefectIssuer}},
	} {
		modules = append(modules, module{name: prefix + m.suffix, server: m.server, end: tokenRefused, act: logOutByToken(m.edit)})
	}
	return modules
}
