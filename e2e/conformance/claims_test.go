package conformance

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

// claimsModules are the modules for UserInfo and for claims of other sources.
var claimsModules = []module{
	{name: "oidcc-client-test-userinfo-bearer-body", server: "token in the body alone", end: loggedIn, options: "userinfo post", knobs: func(k *fakeas.Knobs) {
		k.UserInfoPost = true
	}},
	{name: "oidcc-client-test-userinfo-signed", server: "signed UserInfo, without times", end: loggedIn, act: loginWithClaim("email"), knobs: func(k *fakeas.Knobs) {
		k.UserInfoFormat = fakeas.FormatJWT
	}},
	{name: "oidcc-client-test-aggregated-claims", server: "`address` in a signed source", end: loggedIn, act: loginWithAggregatedClaims},
	{name: "oidcc-client-test-distributed-claims", server: "`credit_score` at a source with a token of its own", end: loggedIn, act: loginWithDistributedClaims},
}

// wrongAlgorithm is the module of the plan for back-channel logout whose token has another algorithm than the registered one.
var wrongAlgorithm = module{
	name: "oidcc-client-test-rp-backchannel-rpinitlogout-wrong-alg", server: "ES256 in place of the registered RS256", end: tokenRefused,
	options: "id_token_signed_response_alg RS256",
	knobs: func(k *fakeas.Knobs) {
		k.Metadata.Set = map[string]any{"id_token_signing_alg_values_supported": []string{"RS256", "ES256"}}
	},
	act: logOutByTokenOf("ES256", fakeas.TokenEdit{}),
}

// loginWithClaim returns an act: a login, after which the session has the claim.
func loginWithClaim(name string) func(*run) {
	return func(r *run) {
		r.login()
		var session struct {
			Claims map[string]json.RawMessage `json:"claims"`
		}
		answer := r.fetch(http.MethodGet, "/oauth2/session")
		if err := json.Unmarshal(answer.Body, &session); err != nil || session.Claims[name] == nil {
			r.Errorf("got %v and error %v, want the claim %s", answer, err, name)
		}
	}
}

// signedClaims returns a JWT of the server with one claim. It is no logout token, although the same function signs it.
func (r *run) signedClaims(name string, value any) string {
	r.Helper()
	token, err := r.as.LogoutToken(fakeas.Logout{ClientID: clientID, Subject: fakeas.DefaultUser, Edit: fakeas.TokenEdit{
		Header: fakeas.Edit{Set: map[string]any{"typ": "JWT"}},
		Claims: fakeas.Edit{Set: map[string]any{name: value}, Omit: []string{"events", "jti"}},
	}})
	if err != nil {
		r.Fatal(err)
	}
	return token
}

// setSource makes UserInfo refer to a source for a claim (OpenID Connect Core, section 5.6.2).
func (r *run) setSource(claim string, source map[string]any) {
	r.as.Set(func(k *fakeas.Knobs) {
		k.UserInfo.Set = map[string]any{"_claim_names": map[string]any{claim: "src1"}, "_claim_sources": map[string]any{"src1": source}}
	})
}

// loginWithAggregatedClaims is a login with a claim that UserInfo holds in a signed source.
func loginWithAggregatedClaims(r *run) {
	r.setSource("address", map[string]any{"JWT": r.signedClaims("address", map[string]any{"locality": "Bern"})})
	loginWithClaim("address")(r)
}

// loginWithDistributedClaims is a login with a claim that a source gives for an access token.
func loginWithDistributedClaims(r *run) {
	const sourceToken = "token-of-the-source"
	token := r.signedClaims("credit_score", 650)
	var asked atomic.Int32
	source := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Header.Get("Authorization") != "Bearer "+sourceToken {
			http.Error(w, "no token", http.StatusUnauthorized)
			return
		}
		asked.Add(1)
		w.Header().Set("Content-Type", "application/jwt")
		_, _ = io.WriteString(w, token) // a failed answer fails the test
	}))
	defer source.Close()
	r.setSource("credit_score", map[string]any{"endpoint": fmt.Sprintf("%s/claims", source.URL), "access_token": sourceToken})
	loginWithClaim("credit_score")(r)
	if n := asked.Load(); n != 1 {
		r.Errorf("got %d requests at the source, want 1", n)
	}
}
