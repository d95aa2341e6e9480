// Package security holds the tests of hostile traffic: each TestS<number>
// proves one requirement on a whole Caddy, as docs/security.md lists them.
//
// A [world] is what the tests run in: Caddy with the module, an app that shows
// exact bytes, a second app behind error routes, two authorization servers and
// a recorder that nobody may talk to. Whatever a test does, it ends with the
// same inspection: the world still works, and no secret has left its place.
package security
