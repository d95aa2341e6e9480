// Package storetest tests implementations of [session.Store] and
// [session.SharedStore].
//
// The author of a store calls [Run] from a test. Every sentence of the
// store's contract is a subtest, and a failure quotes the sentence that was
// broken:
//
//	func TestStore(t *testing.T) {
//		storetest.Run(t, func(t *testing.T) session.Store {
//			s, err := mystore.Open(t.TempDir())
//			if err != nil {
//				t.Fatal(err)
//			}
//			t.Cleanup(func() { s.Close() })
//			return s
//		})
//	}
//
// The author of a store that several processes share calls [RunShared] as well,
// with two stores on the same data that have nothing else in common: no
// connection, no copies.
//
//	func TestSharedStore(t *testing.T) {
//		storetest.RunShared(t, func(t *testing.T) (a, b session.SharedStore) {
//			return connect(t), connect(t)
//		})
//	}
//
// Run the test with the race detector on: some broken promises, such as a
// buffer that is used again too early, show themselves only there.
//
// A store that tells the time with [time.Now] and does not depend on another
// process or on the network passes [RunFakeTime] too. [Benchmark] measures the
// two calls that matter: the read of every proxied request, and the write of
// every refresh.
package storetest
