package echo

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// exchange is one request and the connection for its answer.
type exchange struct {
	server *Server
	conn   net.Conn
	in     *reader
	req    Request
}

// answer writes the answer and reports whether to keep the connection open.
func (x *exchange) answer(rejected bool) (keepAlive bool) {
	path, query := x.req.target()
	params, _ := url.ParseQuery(query) // malformed parameters are ignored
	switch {
	case x.req.Malformed != "":
		return x.write(http.StatusBadRequest)
	case rejected || path == "/u/401":
		return x.write(http.StatusUnauthorized, `WWW-Authenticate: Bearer error="invalid_token"`)
	case path == "/u/ws":
		return x.webSocket()
	case path == "/u/sse":
		return x.events()
	case path == "/u/setcookie":
		lines := []string{"Set-Cookie: app=1; Path=/"}
		for _, name := range params["name"] {
			lines = append(lines, "Set-Cookie: "+strings.NewReplacer("\r", "", "\n", "").Replace(name)+"=planted; Path=/; Secure")
		}
		return x.write(http.StatusOK, lines...)
	case path == "/u/redirect":
		return x.write(http.StatusFound, "Location: "+strings.NewReplacer("\r", "", "\n", "").Replace(params.Get("to")))
	case path == "/u/public-cache":
		return x.write(http.StatusOK, "Cache-Control: public, max-age=3600", `ETag: "1"`)
	case path == "/u/slow":
		return x.slow(params.Get("d"))
	}
	return x.write(http.StatusOK)
}

// slow answers after the given duration, or not at all once the server closes.
func (x *exchange) slow(after string) bool {
	d, err := time.ParseDuration(after)
	if err != nil || d < 0 || d > idleTimeout/2 {
		return x.write(http.StatusBadRequest)
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return x.write(http.StatusOK)
	case <-x.server.closing:
		return false
	}
}

// write answers with the request as JSON and reports whether to keep the
// connection open.
func (x *exchange) write(status int, lines ...string) bool {
	echoed := x.req
	if x.server.hideAuthorization {
		echoed = echoed.withoutAuthorization()
	}
	body, err := json.Marshal(echoed)
	if err != nil {
		return false
	}
	if path, _ := x.req.target(); strings.HasPrefix(path, "/admin") {
		body, _ = json.Marshal(struct { // cannot fail: the request was encoded above
			Request
			Page string `json:"page"`
		}{echoed, "SECRET-PAGE"})
	}
	lines = append(lines, "Content-Type: application/json", fmt.Sprintf("Content-Length: %d", len(body)))
	if x.req.Malformed != "" || x.req.closes() {
		lines = append(lines, "Connection: close")
	}
	if x.req.method() == http.MethodHead {
		body = nil
	}
	head := fmt.Sprintf("HTTP/1.1 %d %s\r\n%s\r\n\r\n", status, http.StatusText(status), strings.Join(lines, "\r\n"))
	_, err = x.conn.Write(append([]byte(head), body...))
	return err == nil
}
