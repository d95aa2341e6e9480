// Package keeper keeps the tokens of logged-in browsers valid.
//
// A [Keeper] answers one question for each request: does this cookie belong to a session,
// and what is its access token now? It refreshes tokens before they expire, sends each
// refresh token from one instance on a store only, and repeats it only if no answer came. It
// writes the rotated refresh token first. If the store does not take the write in time, the
// keeper serves the new tokens from memory and repeats the write.
//
// A [Vault] holds a store and the state that all keepers on it share in this process, such
// as refreshes in progress. During a reload of the configuration, the keepers of the old and
// of the new configuration use one vault. [Vault.Close] ends it.
//
// # Sessions
//
// [Keeper.RedeemLogin] redeems the authorization code of a login once, and [Keeper.Create]
// stores the new session. [Keeper.CanKeep] reports in advance whether the store works.
// [Keeper.Fresh] returns the session of a request, and refreshes its token if necessary;
// [Keeper.FreshSince] and [Keeper.FreshOtherThan] ask for a newer token, and [Keeper.Peek]
// only reads. [Keeper.AttachUse] binds a request in progress to its session, and
// [Keeper.Attach] does so for a request that does not count as use.
//
// [Keeper.End], [Keeper.EndByServerLogout], the time limits and refreshes end sessions; the
// reasons are those of [EndReason].
//
// # Failures
//
// A failure of the store or of the authorization server ends no session. If no
// valid token can be had now, the call returns an [UnavailableError]: the answer is 503.
// [ErrNoSession] means that the user must log in. An [Event] reports what happens outside of requests.
//
// docs/protocol describes a refresh over several instances, with a model that is checked
// exhaustively.
//
// The package never speaks HTTP and never parses an OAuth message: a [Refresher] does.
package keeper
