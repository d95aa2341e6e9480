package figures

import "time"

// Refreshing is what the name of a subject ends in while its tokens are
// refreshed all the time.
const Refreshing = ", tokens become due"

// A Storm is what requests met that asked within one second for sessions whose
// tokens had all expired.
type Storm struct {
	Subject  string
	Sessions int
	Latency  time.Duration // of the authorization server, at least

	// Failed are the requests that did not reach the app with a good token, and Lost
	// the sessions for which neither did the next one.
	Failed, Lost int
	Refreshes    int

	P50, P99, Max time.Duration // of the requests, failed or not
	IssuerP99     time.Duration // of the authorization server's answers, under this load
	CrowdP99      time.Duration // of as many requests in a second with good tokens; 0: not known to be good

	Strangers float64
}

// A Size is what the sessions of a subject take.
type Size struct {
	Subject  string
	Sessions int
	// Started is how long it took to start with them in the store.
	Started time.Duration
	// StoreBytes are those of all sessions in the file, or in the memory of
	// Redis.
	StoreBytes int64
	// Anonymous and File are the process' memory above that of the anchor in
	// bytes, its own and that of the file, after each session was used once. Live
	// is the part of Anonymous that is in use.
	Anonymous, File, Live int64
}
