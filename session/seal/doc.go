// Package seal encrypts two kinds of values before they leave the process: the records and
// labels of sessions in the store, and the values that a browser carries through a login.
//
// A browser holds one cookie, a [Secret] of 256 random bits. A [Site] seals the
// record of its session with AES-256-GCM under a key derived from both the secret and
// a [Key] of the server's [KeyRing]. A stolen store, even together with the server's
// keys, therefore opens no session. A record cannot be forged, and opens under no other
// session, site or version of its item.
//
// The label of a session is the exception: the server's key alone opens it. It contains
// the data by which an operator finds a session, and no token.
//
// With several instances, [Share] makes all of them seal with a key that every one of
// them can open with, so that keys are replaced while the instances run.
//
// The package never reads or writes a store, apart from the announcements of keys, and
// never interprets the content of a record.
package seal
