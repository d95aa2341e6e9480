package client

import "net/http"

// Through sends all requests over a transport that many clients may share, and those for the host to the address that
// choose names, both with their ports, as a balancer in front of several servers does. The request itself stays one for the
// host. It must be called before the first request.
func (c *Client) Through(shared http.RoundTripper, host string, choose func() (addr string)) {
	c.http.Transport = &balancer{shared: shared, host: host, choose: choose}
}

type balancer struct {
	shared http.RoundTripper
	host   string
	choose func() string
}

func (b *balancer) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Host != b.host {
		return b.shared.RoundTrip(r)
	}
	passed := r.Clone(r.Context()) // a RoundTripper leaves the request as it is
	passed.Host = b.host
	passed.URL.Host = b.choose()
	return b.shared.RoundTrip(passed)
}
