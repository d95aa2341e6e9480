package fakeas

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
)

// Transport calls a handler without a socket, so that a client and a server can
// share a testing/synctest bubble. Faults give the same errors as over TCP: a
// reset connection is a *net.OpError, a closed one io.EOF, or io.ErrUnexpectedEOF
// within a body. Transport does not decode Content-Encoding.
//
// As over TCP, the end of the client's context cancels the context of the
// handler's request, and the handler continues.
func Transport(h http.Handler) http.RoundTripper { return &transport{handler: h} }

type transport struct{ handler http.Handler }

func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	in, err := incoming(req)
	if err != nil {
		return nil, err
	}
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	body, bodyWriter := io.Pipe()
	w := &memoryWriter{header: http.Header{}, body: bodyWriter, head: req.Method == http.MethodHead, ready: make(chan struct{})}
	go w.serve(t.handler, in)
	abandon := func() { _ = body.CloseWithError(req.Context().Err()) }
	select {
	case <-w.ready:
	case <-req.Context().Done():
		abandon()
		return nil, req.Context().Err()
	}
	if w.failure != nil {
		return nil, w.failure
	}
	return &http.Response{
		Status: fmt.Sprintf("%d %s", w.status, http.StatusText(w.status)), StatusCode: w.status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: w.sent, ContentLength: -1, Request: req,
		Body: &memoryBody{PipeReader: body, stop: context.AfterFunc(req.Context(), abandon)},
	}, nil
}

// incoming returns the server's view of a client's request.
func incoming(req *http.Request) (*http.Request, error) {
	in := req.Clone(req.Context())
	in.Body = http.NoBody
	if req.Body != nil {
		defer req.Body.Close()
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return nil, fmt.Errorf("reading the request body: %w", err)
		}
		in.Body, in.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	}
	if in.Host == "" {
		in.Host = req.URL.Host
	}
	in.RequestURI, in.RemoteAddr = req.URL.RequestURI(), "127.0.0.1:1"
	return in, nil
}

// memoryWriter is the http.ResponseWriter of a transport.
type memoryWriter struct {
	header http.Header
	head   bool
	body   *io.PipeWriter

	once  sync.Once
	ready chan struct{} // closed once the following fields are set
	// sent and status are the answer's head. failure is set if there is none.
	sent    http.Header
	status  int
	failure error
}

func (w *memoryWriter) Header() http.Header { return w.header }

func (w *memoryWriter) WriteHeader(status int) {
	w.once.Do(func() {
		w.sent, w.status = w.header.Clone(), status
		close(w.ready)
	})
}

func (w *memoryWriter) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if w.head {
		return len(b), nil
	}
	return w.body.Write(b)
}

// Flush does nothing, since the writer has no buffer.
func (w *memoryWriter) Flush() {}

// abort breaks the connection with the given error. It does not return.
func (w *memoryWriter) abort(err error) {
	w.once.Do(func() {
		w.failure = err
		close(w.ready)
	})
	panic(http.ErrAbortHandler)
}

// serve runs the handler until it returns.
func (w *memoryWriter) serve(h http.Handler, r *http.Request) {
	defer func() {
		// Unlike net/http's server, this lets any other panic end the test.
		if p := recover(); p != nil {
			if p != http.ErrAbortHandler {
				panic(p)
			}
			w.once.Do(func() {
				w.failure = io.EOF
				close(w.ready)
			})
			_ = w.body.CloseWithError(io.ErrUnexpectedEOF)
			return
		}
		w.WriteHeader(http.StatusOK)
		_ = w.body.Close()
	}()
	h.ServeHTTP(w, r)
}

// memoryBody is an answer's body. Close also releases the request's context.
type memoryBody struct {
	*io.PipeReader
	stop func() bool
}

func (b *memoryBody) Close() error {
	b.stop()
	return b.PipeReader.Close()
}
