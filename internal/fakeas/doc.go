// Package fakeas is a scriptable OAuth 2.0 authorization server and OpenID
// provider for tests.
//
// It approves every login by itself, keeps a ledger of every token it issued
// and of every time a token came back, and misbehaves on demand. It shares no
// code with what it tests, so that both cannot be wrong in the same way.
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
// Lasting behaviour is set with [Server.Set], the next N answers are spoiled
// with [Server.Fail], and keys are changed with [Server.RotateKey] and its
// neighbours. Everything can be changed while requests are running, and over
// HTTP as JSON below /ctl/ (see [Server.ServeHTTP]).
//
// # Tokens
//
// Tokens are canaries: AT_, RT_ or CODE_ and 64 hexadecimal digits, so that a
// leak is found with grep. A JWT access token carries such a value as jti.
//
// # Time
//
// The server reads time.Now and waits on timers only, and [Transport] reaches
// it without a socket, so it works inside a testing/synctest bubble, provided
// that it was created there.
package fakeas
