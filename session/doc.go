// Package session keeps the tokens of logged-in browsers.
//
// # Secrets and records
//
// A browser holds one cookie, a [Secret] of 256 random bits. A [Store] keeps
// one record per session under the [ID], a hash of that secret. Records are
// sealed with AES-256-GCM under a key derived from both the secret and a key
// of the server's [KeyRing]: a stolen store, even with the server's keys, opens
// no session, and a record cannot be forged, moved to another session or
// another [Site], or mixed with an older version of itself.
//
// # Refreshing
//
// The [Keeper] answers one question for each request: is there a session
// behind this cookie, and what is its access token now? It refreshes tokens
// ahead of their expiry, redeems each refresh token exactly once, commits the
// rotated refresh token before anything else, and keeps what it could not
// commit in memory until it can. What several keepers of one process share
// (after a reload of the configuration two overlap) is in the [Vault].
//
// The package knows nothing of HTTP, of OAuth messages or of Caddy. It reaches
// the authorization server through the small interface [Refresher].
package session
