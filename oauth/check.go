package oauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Problem is something at the authorization server or in the configuration that makes
// logins fail, or may do so.
type Problem struct {
	// Code identifies the kind of problem. It is one of the Problem constants.
	Code string
	// Option is the option of the Caddyfile that an operator should look at.
	Option string
	// Err is the cause. It contains no secret.
	Err error
	// Warning is set if logins may succeed all the same.
	Warning bool
}

// The kinds of problems that Check finds.
const (
	ProblemMetadata     = "metadata"        // the metadata could not be fetched, or cannot be used
	ProblemEndpoint     = "endpoint"        // no authorization or token endpoint is known
	ProblemKeys         = "keys"            // the keys of ID tokens could not be fetched
	ProblemAlgorithm    = "algorithm"       // no key fits the algorithm of ID tokens
	ProblemAuthMethod   = "auth_method"     // the server does not list the client's authentication
	ProblemPKCE         = "pkce"            // the server lists PKCE methods without S256
	ProblemResponseMode = "response_mode"   // the server does not list the response mode
	ProblemScope        = "scope"           // the scope openid is missing beside an issuer
	ProblemClock        = "clock"           // the clocks differ by more than maxClockDifference
	ProblemPAR          = "pushed_requests" // the server demands pushed requests, and names no endpoint
)

// maxClockDifference is the difference of the clocks that Check accepts. ID tokens
// are accepted with this much.
const maxClockDifference = 30 * time.Second

// Check fetches what a login needs, unless this client has it already, and returns the
// problems that it finds: the metadata, the keys, and what the metadata says about this
// client. Without an issuer there is nothing to fetch. Check proves neither the client's
// credentials nor its redirect URI.
func (c *Client) Check(ctx context.Context) (problems []Problem) {
	add := func(code, option string, err error, warning bool) {
		problems = append(problems, Problem{Code: code, Option: option, Err: err, Warning: warning})
	}
	if c.issuer != "" && !c.OpenID() {
		add(ProblemScope, "scope", errors.New("without the scope openid, the server sends no ID token, and nobody's name is known: "+
			"add openid, or leave the issuer out for a plain OAuth 2.0 server"), true)
	}
	m, err := c.metadata(ctx)
	if err != nil {
		add(ProblemMetadata, "issuer", err, false)
		return problems
	}
	for _, name := range []string{authorizationEndpoint, tokenEndpoint} {
		if _, err := c.endpoint(ctx, name); err != nil {
			add(ProblemEndpoint, name, err, false)
		}
	}
	if c.OpenID() {
		problems = append(problems, c.checkKeys(ctx)...)
	}
	if m != nil {
		problems = append(problems, c.checkMetadata(m)...)
	}
	if d := time.Duration(c.clockDifference.Load()); d.Abs() > maxClockDifference {
		add(ProblemClock, "issuer", fmt.Errorf("the clock of the authorization server is %s: set both clocks with NTP, "+
			"as tokens count as expired or not yet valid", describeDifference(d)), true)
	}
	return problems
}

// checkKeys looks for a key that can verify ID tokens.
func (c *Client) checkKeys(ctx context.Context) []Problem {
	set, err := c.keys.get(ctx)
	if err != nil {
		return []Problem{{Code: ProblemKeys, Option: jwksURI, Err: fmt.Errorf("%w: %w", ErrKeysUnavailable, err)}}
	}
	alg, err := c.signingAlgorithm(ctx)
	if err != nil {
		return []Problem{{Code: ProblemKeys, Option: jwksURI, Err: err}}
	}
	fits := func(k verificationKey) bool { return (k.alg == "" || k.alg == alg) && matchesAlgorithm(k.public, alg) }
	if slices.ContainsFunc(set.value.keys, fits) {
		return nil
	}
	return []Problem{{Code: ProblemAlgorithm, Option: "id_token_signed_response_alg", Err: fmt.Errorf(
		"the server has no key for %s: register the client for an algorithm of the server's keys, and give it in id_token_signed_response_alg", alg)}}
}

// checkMetadata compares the client with what the server offers. A list that the
// metadata leaves out says nothing.
func (c *Client) checkMetadata(m *metadata) (problems []Problem) {
	lacks := func(list []string, value string) bool {
		return len(list) > 0 && value != "" && !slices.Contains(list, value)
	}
	warn := func(code, option string, offered []string, format string, args ...any) {
		problems = append(problems, Problem{Code: code, Option: option, Warning: true,
			Err: fmt.Errorf("%s; it lists %s", fmt.Sprintf(format, args...), quote(strings.Join(offered, " ")))})
	}
	if method := c.authMethod; method != authAssertion && lacks(m.authMethods, method) {
		warn(ProblemAuthMethod, "token_endpoint_auth_method", m.authMethods, "the server does not list %s for clients", method)
	}
	if lacks(m.pkceMethods, "S256") {
		warn(ProblemPKCE, "issuer", m.pkceMethods, "the server does not list the PKCE method S256, which every login uses")
	}
	if lacks(m.responseModes, c.responseMode) {
		warn(ProblemResponseMode, "response_mode", m.responseModes, "the server does not list response_mode %s", c.responseMode)
	}
	if m.requirePAR && m.endpoints[parEndpoint] == "" && c.endpoints[parEndpoint] == "" {
		problems = append(problems, Problem{Code: ProblemPAR, Option: parEndpoint,
			Err: errors.New("the server demands pushed authorization requests, but its metadata has no endpoint for them: give pushed_authorization_request_endpoint")})
	}
	return problems
}

// noteClock compares the Date of a response with the clock of this machine.
func (c *Client) noteClock(h http.Header, sent time.Time) {
	date, err := http.ParseTime(h.Get("Date"))
	if err != nil {
		return
	}
	// Date has whole seconds, and was written between the request and now.
	received := time.Now()
	switch {
	case date.Before(sent.Add(-time.Second)):
		c.clockDifference.Store(int64(date.Sub(sent)))
	case date.After(received):
		c.clockDifference.Store(int64(date.Sub(received)))
	default:
		c.clockDifference.Store(0)
	}
}

func describeDifference(d time.Duration) string {
	if d < 0 {
		return fmt.Sprintf("%v behind the clock of this machine", d.Abs().Round(time.Second))
	}
	return fmt.Sprintf("%v ahead of the clock of this machine", d.Round(time.Second))
}
