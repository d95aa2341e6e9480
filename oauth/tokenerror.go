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

// Kind says what a failed call means for the grant that was sent.
type Kind uint8

const (
	// Rejected: invalid_grant. The code or refresh token is not valid, or not
	// any more. At the UserInfo endpoint: the access token was refused.
	Rejected Kind = iota + 1

	// Unclear: the request was refused, but not in words that prove the grant
	// dead, and some servers say just this to a dead one. That is
	// invalid_request with status 400, 401 or 403; an error that asks for the
	// user or speaks of the token (access_denied, login_required,
	// interaction_required, consent_required, invalid_token, expired_token)
	// with any 4xx; and status 400 with another error in its JSON, or with an
	// empty body.
	Unclear

	// Misconfigured: invalid_client, unauthorized_client, invalid_scope,
	// invalid_target, unsupported_grant_type, any other 4xx, or a
	// configuration with which no request could be sent. The operator must
	// act; the grant was not used.
	Misconfigured

	// Unavailable: status 5xx except 504, 408 or 429, temporarily_unavailable,
	// slow_down, server_error, a 400 that is not the server's own, such as the
	// page of a gateway, no metadata, or no connection. Nothing was processed as
	// far as the server says. Try later, see RetryAfter.
	Unavailable

	// Unanswered: the request was sent, at least in part, and the connection
	// broke before a complete answer came. The server may have used the grant.
	Unanswered

	// Malformed: an answer that cannot be used, such as a redirect, a status
	// 200 without a usable token, or more than 1 MiB. The server may have
	// used the grant.
	Malformed

	// TimedOut: the request was sent, and no complete answer came in time, here
	// or at a gateway (status 504). The server may still be working on it.
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
// request or UserInfo endpoint. Its texts are bounded printable ASCII; they
// repeat at most the error and error_description of the answer, without the
// secrets that were sent.
type TokenError struct {
	// Endpoint is the metadata name of the endpoint, such as token_endpoint.
	Endpoint string
	Kind     Kind
	// Status of the answer, 0 if none came.
	Status int
	// Code and Description are the members error and error_description of
	// RFC 6749 section 5.2, or empty.
	Code, Description string
	// RetryAfter is how long the server asked to wait, at most one hour;
	// 0 if it did not ask. Only Unavailable and TimedOut errors have it.
	RetryAfter time.Duration
	// Err is the cause when there is no usable answer, else nil.
	Err error

	// Granted holds the tokens of an answer to a code that cannot be used as a
	// whole, as far as they could be read, else nil. The caller revokes them. They
	// are no part of the error's text.
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

// setupError is a call that could not be made.
func setupError(endpoint string, err error) *TokenError {
	kind := Misconfigured
	if errors.Is(err, ErrMetadataUnavailable) {
		kind = Unavailable
	}
	return &TokenError{Endpoint: endpoint, Kind: kind, Err: err}
}

func malformed(endpoint string, status int, reason error) *TokenError {
	return &TokenError{Endpoint: endpoint, Kind: Malformed, Status: status, Err: reason}
}

// answerError sorts an answer that refuses the request.
func answerError(endpoint string, a answer) *TokenError {
	if a.status >= 300 && a.status < 400 {
		return malformed(endpoint, a.status, errors.New("redirects are not followed"))
	}
	members, _ := parseObject(a.body)
	code, _ := stringMember(members, "error")
	description, _ := stringMember(members, "error_description")
	status := a.status
	if status < 300 {
		status = http.StatusBadRequest // some servers send errors with status 200
	}
	e := &TokenError{
		Endpoint:    endpoint,
		Kind:        classify(status, code, saysError(a.body, members)),
		Status:      a.status,
		Code:        clean(code, a.secrets...),
		Description: clean(description, a.secrets...),
	}
	if e.Kind == Unavailable || e.Kind == TimedOut {
		e.RetryAfter = retryAfter(a.header, time.Now())
	}
	return e
}

// saysError reports whether an answer with status 400 is the server's own: a JSON
// object with an error, or nothing at all, as some servers answer to a dead token.
// Everything else comes from something between, which knows nothing of the grant.
func saysError(body []byte, members map[string]json.RawMessage) bool {
	e, ok := members["error"]
	return len(body) == 0 || ok && string(e) != "null" && string(e) != `""`
}

// classify sorts a status of 400 or more with the error code of the body, ""
// if it has none.
func classify(status int, code string, saysError bool) Kind {
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
	case status == http.StatusBadRequest && saysError:
		return Unclear
	case status == http.StatusBadRequest:
		return Unavailable
	}
	return Misconfigured
}

// retryAfter reads a Retry-After header, in seconds or as a date, within
// [0, 1h].
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
