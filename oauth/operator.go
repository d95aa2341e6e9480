package oauth

import "errors"

// errNeedsOperator marks errors of metadata, keys and tokens that stay until an
// operator changes something, here or at the server. It is matched with errors.Is only.
var errNeedsOperator = errors.New("the configuration here or at the server must be corrected")

// operatorError is an error for which errors.Is reports errNeedsOperator.
type operatorError struct{ error }

func (operatorError) Is(target error) bool { return target == errNeedsOperator }

func (e operatorError) Unwrap() error { return e.error }

// NeedsOperator reports whether a failed login stays impossible until an operator
// changes something, here or at the server: the server has no metadata or keys at
// the configured URLs, its metadata names another issuer or lacks an endpoint, it
// signs or encrypts tokens in another way than configured, its ID tokens are for
// audiences that are not trusted, or it refuses this client or its pushed requests. A
// new try does not help then. For every other error it may.
func NeedsOperator(err error) bool {
	if errors.Is(err, errNeedsOperator) || errors.Is(err, ErrNoEndpoint) {
		return true
	}
	e, ok := errors.AsType[*TokenError](err)
	if !ok {
		return false
	}
	switch e.Kind {
	case Misconfigured:
		return true
	case Rejected, Unclear, Malformed:
		// A pushed request carries no grant that could be at fault.
		return e.Endpoint == parEndpoint
	}
	return false
}
