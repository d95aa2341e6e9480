package echo

import (
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// events sends server-sent events until the client disconnects or the server
// closes. A write fails within two events of the client's disconnection.
func (x *exchange) events() bool {
	defer x.server.countStream()()
	_ = x.conn.SetDeadline(time.Time{}) // fails only on a closed connection; writes then fail, too
	const head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\nConnection: close\r\n\r\n"
	if _, err := io.WriteString(x.conn, head); err != nil {
		return false
	}
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for n := 1; ; n++ {
		if _, err := fmt.Fprintf(x.conn, "id: %d\ndata: tick\n\n", n); err != nil {
			return false
		}
		select {
		case <-ticker.C:
		case <-x.server.closing:
			return false
		}
	}
}

// WebSocket opcodes and limits (RFC 6455, section 5.2).
const (
	opClose  = 0x8
	opPing   = 0x9
	opPong   = 0xA
	maxFrame = 1 << 20
)

// webSocket accepts the handshake and echoes frames until one side closes.
func (x *exchange) webSocket() bool {
	key := strings.Join(x.req.Values("Sec-WebSocket-Key"), ",")
	if !strings.EqualFold(strings.Join(x.req.Values("Upgrade"), ","), "websocket") ||
		!strings.Contains(strings.ToLower(strings.Join(x.req.Values("Connection"), ",")), "upgrade") || key == "" {
		return x.write(http.StatusBadRequest)
	}
	defer x.server.countStream()()
	_ = x.conn.SetDeadline(time.Time{}) // fails only on a closed connection; writes then fail, too
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	_, err := fmt.Fprintf(x.conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		base64.StdEncoding.EncodeToString(sum[:]))
	for err == nil {
		err = x.echoFrame()
	}
	return false
}

// echoFrame reads one masked frame and sends it back unmasked. It returns
// io.EOF after a close frame.
func (x *exchange) echoFrame() error {
	first, payload, err := readFrame(x.in)
	if err != nil {
		return err
	}
	opcode := first & 0x0F
	switch opcode {
	case opPong:
		return nil
	case opPing:
		first = 0x80 | opPong
	}
	if _, err := x.conn.Write(frame(first, payload)); err != nil {
		return err
	}
	if opcode == opClose {
		return io.EOF
	}
	return nil
}

// readFrame returns the first byte (FIN and opcode) and the unmasked payload.
func readFrame(r io.Reader) (first byte, payload []byte, err error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	length := uint64(head[1] & 0x7F)
	switch length {
	case 126:
		var b [2]byte
		_, err = io.ReadFull(r, b[:])
		length = uint64(binary.BigEndian.Uint16(b[:]))
	case 127:
		var b [8]byte
		_, err = io.ReadFull(r, b[:])
		length = binary.BigEndian.Uint64(b[:])
	}
	if err != nil {
		return 0, nil, err
	}
	if head[1]&0x80 == 0 || length > maxFrame {
		return 0, nil, malformed("frame without mask, or of %d bytes", length)
	}
	masked := make([]byte, 4+length)
	if _, err := io.ReadFull(r, masked); err != nil {
		return 0, nil, err
	}
	mask, payload := masked[:4], masked[4:]
	for i := range payload {
		payload[i] ^= mask[i%4]
	}
	return head[0], payload, nil
}

// frame builds an unmasked frame.
func frame(first byte, payload []byte) []byte {
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
	}
	return append(b, payload...)
}
