package redis

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
)

// bulk encodes a bulk string of RESP.
func bulk(s string) string { return "$" + strconv.Itoa(len(s)) + "\r\n" + s + "\r\n" }

// oneValue reports whether b is exactly one value of RESP, of a type that a script can
// return.
func oneValue(b []byte) bool {
	rest, ok := cutValue(b, 0)
	return ok && len(rest) == 0
}

// cutValue removes one value from the front of b.
func cutValue(b []byte, depth int) (rest []byte, ok bool) {
	line, rest, ok := bytes.Cut(b, []byte("\r\n"))
	if !ok || len(line) == 0 || depth > 3 || bytes.IndexByte(line, '\n') >= 0 || bytes.IndexByte(line, '\r') >= 0 {
		return nil, false
	}
	n, err := strconv.Atoi(string(line[1:]))
	canonical := err == nil && strconv.Itoa(n) == string(line[1:])
	switch line[0] {
	case '+', '-':
		return rest, len(line) > 1
	case ':':
		return rest, canonical
	case '_':
		return rest, len(line) == 1
	case '$':
		if !canonical || n < 0 || len(rest) < n+2 || string(rest[n:n+2]) != "\r\n" {
			return nil, false
		}
		return rest[n+2:], true
	case '*':
		if !canonical || n < 0 || n > 8 {
			return nil, false
		}
		for ; n > 0 && ok; n-- {
			rest, ok = cutValue(rest, depth+1)
		}
		return rest, ok
	}
	return nil, false
}

// parrot is a server that gives the same reply to every EVALSHA, EVAL and GET, and
// answers the greeting of a client.
type parrot struct {
	mu    sync.Mutex
	reply []byte
}

func (p *parrot) setReply(reply []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reply = bytes.Clone(reply)
}

// dial has the signature of the client's option DialCtxFn.
func (p *parrot) dial(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error) {
	client, server := net.Pipe()
	go p.serve(server)
	return client, nil
}

func (p *parrot) serve(conn net.Conn) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	for {
		command, err := readCommand(r)
		if err != nil {
			return
		}
		reply := []byte("+OK\r\n")
		switch strings.ToUpper(command[0]) {
		case "HELLO":
			reply = []byte("%2\r\n+version\r\n+7.0.0\r\n+proto\r\n:3\r\n")
		case "PING":
			reply = []byte("+PONG\r\n")
		case "EVALSHA", "EVAL", "GET":
			p.mu.Lock()
			reply = p.reply
			p.mu.Unlock()
		}
		if _, err := conn.Write(reply); err != nil {
			return
		}
	}
}

// readCommand reads a command, which is an array of bulk strings.
func readCommand(r *bufio.Reader) ([]string, error) {
	n, err := readNumber(r, '*')
	if err != nil || n < 1 {
		return nil, errors.Join(err, io.ErrUnexpectedEOF)
	}
	command := make([]string, n)
	for i := range command {
		size, err := readNumber(r, '$')
		if err != nil {
			return nil, err
		}
		b := make([]byte, size+2)
		if _, err := io.ReadFull(r, b); err != nil {
			return nil, err
		}
		command[i] = string(b[:size])
	}
	return command, nil
}

func readNumber(r *bufio.Reader, kind byte) (int, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return 0, err
	}
	if line[0] != kind {
		return 0, io.ErrUnexpectedEOF
	}
	return strconv.Atoi(strings.TrimSpace(line[1:]))
}
