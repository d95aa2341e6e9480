// Package handler protects a web app with a login at an OAuth 2.0 or OpenID Connect
// authorization server. It keeps the tokens on the server, and gives the app a valid
// access token with each request.
//
// It works in any Go server. The Caddy module of this project is one of its users.
// docs/library.md is the guide, and its code is the package example.
//
// # Use
//
// A [Handler] needs an [oauth.Client], a [keeper.Keeper] with a [Refresher], and the
// public origin of the site. [New] refuses a configuration that cannot work. All
// durations have defaults: see [keeper.Config].
//
// [Handler.Middleware] wraps an http.Handler. [Handler.ServeHTTP] is the same for
// servers whose handlers return errors, like those of Caddy. [FromContext] returns
// the user of a request.
//
// # Requests
//
// Every request takes one of four ways:
//
//   - A request to an endpoint is answered by the Handler itself. Below the path
//     prefix (/oauth2) are login, callback, logout, logout/callback,
//     backchannel_logout, frontchannel_logout (if configured), session and
//     session/refresh.
//   - A request that [Config.Protects] leaves open is passed on without a token.
//   - A request with a session is passed on with the access token of the session.
//   - A request without a session is passed on if [Config.Optional] allows it.
//     Otherwise a navigation is redirected to the login, and any other request gets
//     status 401 with the URL of the login.
//
// The app never sees the module's cookies and cannot set them. A request from a page
// of another site that could change state gets status 403. A request that needs the
// store or the authorization server while that fails gets status 503, and the session
// stays.
//
// The authorization server must know two addresses of the site: /oauth2/callback as
// redirect URI, and /oauth2/logout/callback as post-logout redirect URI.
//
// # Shutdown
//
// A Handler has nothing to close. Shut down in this order: [http.Server.Shutdown], so
// that no request is left; [keeper.Vault.Close], which waits for refreshes and writes
// tokens that the store has not taken yet; then Close of the store. A program that
// ends without [keeper.Vault.Close] can lose a rotated refresh token, and with it a
// login.
//
// The package never shows a token to the browser, and never decides what a user may do
// beyond [Config.Require].
package handler
