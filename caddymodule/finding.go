package caddymodule

import (
	"context"
	"errors"

	"go.uber.org/zap"

	"github.com/oauth-session/caddy-oauth-session/oauth"
)

// finding is one thing that will not work, or may not, found without a visitor.
type finding struct {
	// code identifies the kind of finding: findingStore, or a code of oauth.Problem.
	code string
	// option is the option of the Caddyfile to look at, such as "issuer".
	option string
	// err says what is wrong, and what to do where that is known. It contains no secret.
	err error
	// warning is set if logins may succeed all the same.
	warning bool
}

const (
	// findingStore means that the session store failed an operation of a login or a refresh.
	findingStore = "store"
	// findingCallback means that no request for the callback reaches the handler.
	findingCallback = "callback"
)

func (f finding) fields() []zap.Field {
	return []zap.Field{zap.String("finding", f.code), zap.String("option", f.option), zap.Error(f.err)}
}

// serverFindings returns what is wrong with the authorization server of a client. It
// fetches metadata and keys that the client does not have yet.
func serverFindings(ctx context.Context, client *oauth.Client) (found []finding) {
	for _, p := range client.Check(ctx) {
		found = append(found, finding{code: p.Code, option: p.Option, err: p.Err, warning: p.Warning})
	}
	return found
}

// findings returns what is wrong with the store.
func (v *pooledVault) findings(ctx context.Context) []finding {
	if err := v.store.check(ctx); err != nil {
		return []finding{{code: findingStore, option: "store", err: err}}
	}
	return nil
}

// failure returns the errors of the findings that are no warnings, or nil.
func failure(found []finding) error {
	var errs []error
	for _, f := range found {
		if !f.warning {
			errs = append(errs, f.err)
		}
	}
	return errors.Join(errs...)
}
