// Package oauth is the client of one authorization server: it reads the
// server's metadata, builds authorization requests, redeems authorization codes
// and refresh tokens, verifies ID tokens and logout tokens, and calls the
// revocation and UserInfo endpoints.
//
// It implements OAuth 2.0 (RFC 6749) with PKCE (RFC 7636), server metadata
// (RFC 8414), pushed authorization requests (RFC 9126), resource indicators
// (RFC 8707), issuer identification (RFC 9207), revocation (RFC 7009) and client
// authentication with assertions (RFC 7521, RFC 7523), and
// OpenID Connect Core, Discovery, RP-Initiated Logout and Back-Channel Logout.
//
// # Use
//
// [New] checks a [Config] and returns a [Client]. A login takes three calls:
// [Client.AuthorizationURL] before the browser leaves, and [Client.RedeemCode]
// and [Client.VerifyIDToken] when it comes back. Before it redeems the code, the
// caller compares the state and calls [Client.CheckIssuer]. [Client.Refresh]
// renews the tokens. The caller keeps the tokens, the nonce and the code
// verifier; a Client keeps the server's metadata and keys only.
//
// # Security
//
// Connections need a verified certificate and TLS 1.2 or newer. Plain http is
// accepted to loopback hosts only. The client follows no redirects, so a
// credential goes to the configured endpoint or nowhere. It sends a grant at
// most once per call, and never finds the client authentication method by trial.
// It reads at most 1 MiB of a response. Tokens of the server are accepted with one
// signature algorithm. URLs that the server names in the claims of a user lead to its own
// hosts or to public addresses only. [Config.Timeout] limits each call, and
// [Config.RefreshResponseTimeout] the wait for the response to a refresh.
//
// # Errors
//
// Calls to the token, revocation, pushed authorization request and UserInfo
// endpoints fail with a [*TokenError], whose Kind says what the failure means
// for the grant. [ErrMetadataUnavailable] and [ErrKeysUnavailable] mark temporary
// failures. [ErrNoEndpoint] marks an endpoint that neither the configuration nor
// the server's metadata names. An error may repeat the error and
// error_description of a response, but no other part of its body, and no token,
// code, verifier or client secret.
//
// The package never serves HTTP, never stores tokens and never writes logs.
package oauth
