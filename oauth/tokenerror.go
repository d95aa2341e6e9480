package oauth

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Kind says what a failed call means for the grant: the code or refresh token
// that was sent.
type Kind uint8

const (
	// Rejected means invalid_grant: the code or refresh token is not valid, or no
	// longer. At the UserInfo endpoint: the server refused the access token.
	Rejected Kind = iota + 1

	// Unclear means that the server refused the request, but with an error that
	// does not prove the grant dead, although some servers send it for a dead
	// grant. These are invalid_request with status 400, 401 or 403; an error about
	// the user or the token (access_denied, login_required,
	// interaction_required, consent_required, invalid_token, expired_token) with
	// any 4xx; and status 400 with another error in its JSON, or with an empty
	// body.
	Unclear

	// Misconfigured means that the operator must act, and that the grant was not
	// used: invalid_client, unauthorized_client, invalid_scope, invalid_target,
	// unsupported_grant_type, any other 4xx, or a configuration with which no
	// request could be sent.
	Misconfigured

	// Unavailable means that the server has not processed the grant, as far as the
	// client can see. The caller may retry, see RetryAfter. This covers status 408,
	// 429 and 5xx except 504; temporarily_unavailable, slow_down and server_error; a
	// 400 that does not come from the server itself, such as the page of a gateway;
	// missing metadata; and connections that could not be established.
	Unavailable

	// Unanswered means that the request was sent, at least in part, and that the
	// connection broke before a complete response arrived. The server may have used
	// the grant.
	Unanswered

	// Malformed means that the response is unusable, such as a redirect, a status
	// 200 without a usable token, or more than 1 MiB. The server may have used the
	// grant.
	Malformed

	// TimedOut means that the request was sent, and that no complete response
	// arrived in time, here or at a gateway (status 504). The server may still be
	// processing the grant.
	TimedOut
)

// String returns the kind in lower case, fit for a metric's label.
func (k Kind) String() string {
	switch k {
	case Rejected:
		return "rejected"
	case Unclear:
		return "unclear"
	case Misconfigured:
		return "misconfigured"
	case Unavailable:
		return "unavailable"
	case Unanswered:
		return "unanswered"
	case Malformed:
		return "malformed"
	case TimedOut:
		return "timed_out"
	}
	return "unknown"
}

// TokenError is a failed call of the token, revocation, pushed authorization
// request or UserInfo endpoint. Its text is printable ASCII. It repeats at most
// the error and error_description of the response, up to 200 characters of each,
// and never a secret of the request.
type TokenError struct {
	// Endpoint is the metadata name of the endpoint, such as token_endpoint.
	Endpoint string
	// Kind is the meaning of the failure for the grant.
	Kind Kind
	// Status is the HTTP status of the response, 0 without a response.
	Status int
	// Code and Description are the members error and error_description of
	// RFC 6749 section 5.2, or empty.
	Code, Description string
	// RetryAfter is how long the server asked the client to wait, at most one
	// hour; 0 if it did not ask. Only the kinds Unavailable and TimedOut have it.
	RetryAfter time.Duration
	// Err is the cause if there is no usable response, else nil.
	Err error

	// Granted holds the readable tokens of a response to a code that is unusable as
	// a whole, else nil. The caller should revoke them. The text of the error does
	// not contain them.
	Granted *TokenResponse
}

func (e *TokenError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "calling %s: %s", e.Endpoint, e.Kind)
	if e.Status != 0 {
		fmt.Fprintf(&b, ", HTTP %d", e.Status)
	}
	if e.Code != "" {
		fmt.Fprintf(&b, ", %s", e.Code)
	}
	if e.Description != "" {
		fmt.Fprintf(&b, " (%s)", e.Description)
	}
	if e.Err != nil {
		fmt.Fprintf(&b, ": %v", e.Err)
	}
	return b.String()
}

func (e *TokenError) Unwrap() error { return e.Err }

// setupError is the error of a call that could not be sent.
func setupError(endpoint string, err error) *TokenError {
	kind := Misconfigured
	if errors.Is(err, ErrMetadataUnavailable) {
		kind = Unavailable
	}
	return &TokenError{Endpoint: endpoint, Kind: kind, Err: err}
}

func malformedError(endpoint string, status int, reason error) *TokenError {
	return &TokenError{Endpoint: endpoint, Kind: Malformed, Status: status, Err: reason}
}

// responseError is the error of a response that refuses the request.
func responseError(endpoint string, r response) *TokenError {
	if r.status >= 300 && r.status < 400 {
		return malformedError(endpoint, r.status, errors.New("redirects are not followed"))
	}
	members, err := r.members()
	if errors.Is(err, errNotUnique) {
		members = nil // it is unclear which of the errors counts
	}
	code, _ := stringMember(members, "error")
	description, _ := stringMember(members, "error_description")
	status := r.status
	if status < 300 {
		status = http.StatusBadRequest // some servers send errors with status 200
	}
	e := &TokenError{
		Endpoint:    endpoint,
		Kind:        classify(status, code, fromServer(r.body, members)),
		Status:      r.status,
		Code:        sanitize(code, r.secrets...),
		Description: sanitize(description, r.secrets...),
	}
	if e.Kind == Unavailable || e.Kind == TimedOut {
		e.RetryAfter = retryAfter(r.header, time.Now())
	}
	return e
}

// fromServer reports whether a response with status 400 comes from the
// authorization server: a JSON object or a form with an error, or an empty body,
// which some servers send for a dead token. Every other body comes from a gateway in
// between, which cannot say anything about the grant.
func fromServer(body []byte, members map[string]json.RawMessage) bool {
	e, ok := members["error"]
	return len(body) == 0 || ok && string(e) != "null" && string(e) != `""`
}

// classify maps a status of 400 or more and the error code of the body to a
// kind. The code is empty if the body has none.
func classify(status int, code string, fromServer bool) Kind {
	if status == http.StatusGatewayTimeout {
		return TimedOut
	}
	if status >= 500 || status == http.StatusTooManyRequests || status == http.StatusRequestTimeout {
		return Unavailable
	}
	switch code {
	case "invalid_grant":
		return Rejected // with 401 and 403 too: Auth0 sends 403
	case "temporarily_unavailable", "slow_down", "server_error":
		return Unavailable
	case "invalid_client", "unauthorized_client", "invalid_scope", "invalid_target", "unsupported_grant_type":
		return Misconfigured
	case "access_denied", "login_required", "interaction_required", "consent_required", "invalid_token", "expired_token":
		return Unclear
	case "invalid_request":
		if status == http.StatusUnauthorized || status == http.StatusForbidden {
			return Unclear
		}
	}
	switch {
	case status == http.StatusBadRequest && fromServer:
		return Unclear
	case status == http.StatusBadRequest:
		return Unavailable
	}
	return Misconfigured
}

// retryAfter reads a Retry-After header, in seconds or as a date. The result is
// within [0, 1h].
func retryAfter(h http.Header, now time.Time) time.Duration {
	value := h.Get("Retry-After")
	var d time.Duration
	if seconds, err := strconv.ParseInt(value, 10, 32); err == nil {
		d = time.Duration(seconds) * time.Second
	} else if t, err := http.ParseTime(value); err == nil {
		d = t.Sub(now)
	}
	return min(max(d, 0), time.Hour)
}
