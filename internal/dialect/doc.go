// Package dialect holds test servers that speak the dialects of three real
// authorization servers, as their documentation of refresh tokens shows them:
// [OrderCloud], [Auth0] and [Pagero].
//
// They are strict. Whatever a client sends that the documentation does not
// name, or leaves out, is refused and recorded in [Server.Violations]: a test
// that ends with an empty list has proven that the client speaks the dialect.
// Where the documentation is silent (authorization endpoints of OrderCloud and
// Pagero, error answers), RFC 6749 stands in.
//
// A Server is an http.Handler and reads time.Now only, so it also works
// behind fakeas.Transport in a testing/synctest bubble.
package dialect
