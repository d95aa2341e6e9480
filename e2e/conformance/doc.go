// Package conformance tests Caddy as the OpenID Foundation's conformance suite tests a relying party.
//
// Each module of the suite's plans for the code flow is one line in a table: the name of the module, the deviation of the
// server, and the expected end. The server is the one of package fakeas, which signs tokens without code of this project.
//
// The suite judges a module by the requests that it gets. A good module ends when the client asks for UserInfo; a bad one
// passes if the client does not ask for a few seconds. These tests wait for the page that the user gets instead of seconds.
// docs/conformance.md shows the table; UPDATE=1 go test -run TestPage writes it.
package conformance
