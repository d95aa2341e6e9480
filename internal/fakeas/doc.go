// Package fakeas is a scriptable OAuth 2.0 authorization server and OpenID
// provider for tests.
//
// The server approves every login without a form. It keeps a ledger of every
// token that it issued and of every use of a token, and fails on demand. It
// shares no code with the product: a mistake in one cannot hide the same mistake
// in the other.
//
// # Use
//
//	as := fakeas.Start(t, fakeas.Options{Clients: []fakeas.Client{{
//		ID: "app", Secret: "s3cret", RedirectURIs: []string{callback},
//	}}})
//	as.Set(func(k *fakeas.Knobs) { k.AccessTokenLifetime = 5 * time.Second })
//	as.Fail(fakeas.LoseAnswer().For(fakeas.GrantRefresh))
//	…
//	if twice := as.Stats().RedeemedTwice; len(twice) > 0 { … }
//
// [Server.Set] sets lasting behaviour, [Server.Fail] spoils the next answers,
// and [Server.RotateKey], [Server.ReplaceKey] and [Server.RetireKeys] change the
// signing keys. Tests may call all of them while requests run, or use the JSON
// interface below /ctl/ (see [Server.ServeHTTP]).
//
// # Tokens
//
// Tokens are canaries: AT_, RT_ or CODE_ and 64 hexadecimal digits, so that a
// search finds a leaked one. A JWT access token has such a value as its jti.
//
// # Time
//
// The server uses time.Now and timers only, and [Transport] reaches it without a
// socket. It therefore works in a testing/synctest bubble if it was created
// there.
package fakeas
