// Package session is the contract between the session keeper and its stores.
//
// A [Store] keeps one sealed [Item] per session under its [ID]. A [SharedStore] is a
// store that several processes use at the same time: it adds leases, notifications
// of changes, and announcements. Package session/storetest tests every sentence of
// both contracts. docs/writing-a-store.md is the guide for authors of stores.
//
// These packages build on the contract:
//
//   - session/seal encrypts records, and selects the key that encrypts them.
//   - session/keeper refreshes tokens and ends sessions.
//   - session/bolt, session/memory and session/redis are stores.
//
// The package never sees a token, a cookie or a key: the values of items are sealed.
package session
