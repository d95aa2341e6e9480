// Package storetest tests implementations of [session.Store] and
// [session.SharedStore].
//
// The author of a store calls [Run] from a test. Each rule of the contract is a subtest,
// and its failure quotes the rule:
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
// The author of a store that several processes share also calls [RunShared], with two
// stores on the same data that share neither a connection nor copies:
//
//	func TestSharedStore(t *testing.T) {
//		storetest.RunShared(t, func(t *testing.T) (a, b session.SharedStore) {
//			return connect(t), connect(t)
//		})
//	}
//
// Run the tests with the race detector: it alone finds some faults, such as a buffer
// that is reused too early.
//
// A store that uses [time.Now], and neither another process nor the network, also passes
// [RunFakeTime]. [Benchmark] measures the two calls that determine performance: View,
// which proxied requests make, and Replace, which refreshes make.
//
// The package never tests that a write survives a crash: that test is the author's.
package storetest
