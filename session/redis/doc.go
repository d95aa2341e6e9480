// Package redis keeps sessions in Redis 6.2 or later, or in Valkey, where any number of
// instances share them. The client is github.com/redis/rueidis.
//
// # Copies
//
// The client keeps a copy of each item that it has read, in sealed form. The server
// pushes changes, so View costs no round trip until the item changes. The client drops
// a copy
//
//   - when the server reports a change of the key,
//   - when the connection of the copy is lost or closed for any reason, such as a
//     restart, a failover, or a node that leaves the cluster,
//   - when the server does not answer a ping, at most 2 seconds after it has frozen or
//     the network has failed,
//   - after 30 seconds in any case.
//
// A write is acknowledged only after this process has dropped its own copy.
//
// # Time limits
//
// Every call of an open store ends within 2 seconds, or with its context. In that time
// it is retried after lost connections, during a failover, and while a slot moves. Three
// cases take longer:
//
//   - A call may wait for a connection that another call is opening. It then takes up to
//     2 seconds more.
//   - While the server is frozen, that wait takes 1 second. View returns no copy once the
//     server has been frozen for 2 seconds, and a View that starts then fails within 3
//     seconds.
//   - With Config.Replicas and more concurrent writes than connections for them, the 2
//     seconds begin when the write gets a connection.
//
// # Failures
//
// [session.ErrNotFound], [session.ErrConflict] and [session.ErrLeased] are answers of
// the server. Every other error means that the server did not answer the question: it
// is down, loading, a replica, out of memory, or refuses the user. A value of another
// Redis type under a key of this package is such an error, too. An item that cannot be
// decoded is a [session.ErrDamaged], which counts as not found.
//
// No error contains a password. docs/redis.md is the page for operators.
//
// The package never decrypts a value, and never touches keys without its prefix.
package redis
