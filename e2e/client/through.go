package client

import "net/http"

// Through sends all requests over the shared transport. Like a load balancer, it sends each request for host to the
// address that choose returns, without changing the Host header. host and the address include the port. Call it before
// the first request.
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
	forwarded := r.Clone(r.Context()) // a RoundTripper must not modify the request
	forwarded.Host = b.host
	forwarded.URL.Host = b.choose()
	return b.shared.RoundTrip(forwarded)
}
