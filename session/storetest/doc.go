// Package storetest tests implementations of [session.Store].
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
// Run the test with the race detector on: some broken promises, such as a
// buffer that is used again too early, show themselves only there.
//
// A store that tells the time with [time.Now] and does not depend on another
// process or on the network passes [RunFakeTime] too. [Benchmark] measures the
// two calls that matter: the read of every proxied request, and the write of
// every refresh.
package storetest
