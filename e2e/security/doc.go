// Package security tests the module against hostile traffic, on whole Caddy processes.
//
// A test named TestS<number> proves the requirement with that number in docs/security.md. The
// docs_test.go of the root directory compares the page with the tests.
//
// # World
//
// Every test runs in a [world], the complete environment of one protected site:
//
//	browser ──► Caddy with oauth_session ──► app       answers with the request it received
//	                 │   │       └─ errors ─► errorApp  makes the error pages
//	                 │   └─► store: a file, or Redis with a second Caddy instance
//	                 └─────► idp    the authorization server of the site
//	                         other  a second authorization server, unknown to the site
//	attacker: a server that must never receive a connection; browsers know it as evil.test
//
// A test gets its world in the first line:
//
//	shared(t)           the default: one instance, sessions in a file
//	sharedRedis(t)      two instances with one Redis
//	sharedBare(t)       no base_url, error pages of the module itself
//	newWorld(t, plan)   other options, or servers that the test stops
//
// The shared worlds come from pools (see [worldPool]), because a new world costs the start of its
// processes. At the start of each test the servers have their default behaviour again.
//
// A test that needs other options of the directive, or a broken authorization server, adds a
// [variant] to a shared world: one more site with its own app and authorization server. It costs
// a reload. In a Redis world a variant exists on the first instance only.
//
// # Parallel tests
//
// These functions make the test parallel and then wait for its turn: at most [maxActive] tests run
// at a time. A plan with mostlyWaits is not counted. A test takes one world, before it does
// anything else. A test of several worlds calls t.Parallel and takes one world in each subtest.
//
// # Requests
//
// A [browser] has cookies, follows the rules of a browser and can log in; nav is a navigation, xhr
// a request of a script, send has exact header lines. [world.raw] sends exact bytes. The function
// [world.appRequests] returns the requests that reach the app during an action. To let a token
// expire, announceLifetimes shortens the expires_in of the authorization server, which itself
// accepts the token for longer. A test waits for an event with eventually, and for a fixed time
// with sleep, where only time makes a token or a session old.
//
// # Inspection
//
// Every test ends with the same inspection, see [world.inspect]:
//
//   - a login still works, and the number of goroutines has returned to normal;
//   - the attacker's server has received no connection;
//   - the leak scan finds no secret, and no log reports a panic.
//
// # Leak scan
//
// The scan knows every secret so far: all tokens, codes and PKCE verifiers of the authorization
// servers, all values of the module's cookies, the server keys, the client secret, and the values
// that a test adds with [world.addSecret]. It searches for them in every answer to a browser, in
// Caddy's files, logs, output and metrics, in Redis, and in the requests at the app, the error app
// and the attacker's server. The app may receive access tokens. A browser may receive the module's
// cookies, and the ID token in the redirect of a logout. A failure names the place, the kind of
// secret and the text before it. TestScanFindsPlantedSecrets proves that the scan finds each kind in
// each place.
//
// # Sizes
//
// With SECURITY_LONG=1 the tests repeat more, and SECURITY_FLOOD=100000 sets the size of floods.
// Without them a test sends fewer requests of the same kinds.
//
// The tests use HTTP, Caddy's admin endpoint and commands, its files, and Redis. They never call
// the module's Go code.
package security
