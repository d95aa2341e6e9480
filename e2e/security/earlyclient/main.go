// Command earlyclient sends one request in TLS 1.3 early data, over HTTP/3. It is a separate program
// because the client of quic-go has data races with early data, and the tests run with the race
// detector.
//
//	earlyclient <address> <origin> <path> [<cookie header>]
//
// It first requests /static/ticket on another connection to get a session ticket, and prints the
// line "ticket". After a line on standard input it sends the request and prints the status of the
// answer.
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"log"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

func main() {
	log.SetFlags(0)
	address, origin, path := os.Args[1], os.Args[2], os.Args[3]
	site, err := url.Parse(origin)
	if err != nil {
		log.Fatal(err)
	}
	config := &tls.Config{
		ServerName: site.Hostname(), ClientSessionCache: tls.NewLRUClientSessionCache(1),
		InsecureSkipVerify: true, //nolint:gosec // it connects to the test's own server
	}
	if _, err := get(config, address, http.MethodGet, origin+"/static/ticket", ""); err != nil {
		log.Fatal(err)
	}
	fmt.Println("ticket")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		log.Fatal(err)
	}
	cookie := ""
	if len(os.Args) > 4 {
		cookie = os.Args[4]
	}
	status, err := get(config, address, http3.MethodGet0RTT, origin+path, cookie)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(status)
}

// get sends a navigation on a new connection and returns the status.
func get(config *tls.Config, address, method, target, cookie string) (status int, err error) {
	tr := &http3.Transport{
		TLSClientConfig: config,
		Dial: func(ctx context.Context, _ string, c *tls.Config, q *quic.Config) (*quic.Conn, error) {
			return quic.DialAddrEarly(ctx, address, c, q)
		},
	}
	defer tr.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, target, nil)
	if err != nil {
		return 0, err
	}
	req.Header = http.Header{"Sec-Fetch-Mode": {"navigate"}, "Sec-Fetch-Dest": {"document"}, "Sec-Fetch-Site": {"none"}}
	if cookie != "" {
		req.Header.Set("Cookie", cookie)
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}
