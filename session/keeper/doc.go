// Package keeper keeps the tokens of logged-in browsers valid.
//
// A [Keeper] answers one question for each request: does this cookie belong to a
// session, and what is its access token now? It refreshes tokens before they expire,
// redeems each refresh token exactly once over all instances on a store, and writes the
// rotated refresh token before it uses the new access token. A write that the store
// does not take stays in memory and is repeated.
//
// A [Vault] is one store with the state that all keepers on it share in this process,
// such as refreshes in progress. During a reload of the configuration, the keepers of
// the old and of the new configuration use one vault.
//
// docs/protocol describes the protocol of a refresh over several instances, with a
// model that is checked exhaustively.
//
// The package never speaks HTTP and never parses an OAuth message: a [Refresher] does.
package keeper
