// Package dialect imitates three real authorization servers for tests, as
// their documentation of refresh tokens describes them: [OrderCloud], [Auth0]
// and [Pagero].
//
// The servers are strict. They refuse a request that has an undocumented
// parameter or lacks a documented one, and record it in [Server.Violations]. An
// empty list at the end of a test proves that the client speaks the dialect.
// RFC 6749 fills the gaps of the documentation: the authorization endpoints of
// OrderCloud and Pagero, and error answers.
//
// A Server is an http.Handler and reads time.Now only, so it also works
// behind fakeas.Transport in a testing/synctest bubble.
package dialect
