// Package redis keeps sessions in Redis 6.2 or later, or in Valkey, where any
// number of instances share them. The client is github.com/redis/rueidis.
//
// # Copies
//
// A read item stays in the process, sealed as it is, and the server pushes the
// news when it changes: View costs no round trip as long as nothing happens. A
// copy is dropped
//
//   - when the server says that the key has changed,
//   - when the connection it came over is lost or closed, whatever the cause: a
//     restart, a failover, a node that left the cluster,
//   - when the server does not answer a ping: 2 seconds after it froze or the
//     network was cut, at the latest,
//   - after 30 seconds in any case.
//
// A write of this process is not acknowledged before its own copy is gone.
//
// # Time limits
//
// Every call of an open store ends within 2 seconds, or earlier if its context
// does; with Config.Replicas and more writes at a time than connections for
// them, within 2 seconds of its turn. Within
// them it is repeated over lost connections, a failover and a moving slot. It
// may end up to 2 seconds later where it waits for a connection that another
// call is making: 1 if the server is frozen, where only the greeting takes
// time. So no copy is handed out 2 seconds after the server froze, and a View
// that begins then fails within 3.
//
// # Failures
//
// Only an answer of the server is an answer: an error other than
// [session.ErrNotFound], [session.ErrConflict] and [session.ErrLeased] means
// that it could not be had, whether the server is away, loading, a replica,
// out of memory, or refuses the user. Foreign data under a key of this package
// is such an error too. No error holds a password.
//
// docs/redis.md is the page for operators.
package redis
