package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"
)

// serve returns a part that serves requests on ln. At the end of its context it finishes running requests and closes ln.
func serve(name string, ln net.Listener, handler http.Handler) part {
	return func(ctx context.Context) error {
		server := &http.Server{
			Handler:           http.MaxBytesHandler(handler, 1<<20),
			ReadHeaderTimeout: 10 * time.Second,
			ReadTimeout:       30 * time.Second,
			WriteTimeout:      30 * time.Second,
		}
		ended := make(chan error, 1)
		go func() { ended <- server.Serve(ln) }()
		select {
		case err := <-ended:
			return fmt.Errorf("%s ended unexpectedly: %w", name, err)
		case <-ctx.Done():
		}
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopLimit)
		defer cancel()
		if server.Shutdown(limit) != nil {
			server.Close() // also ends the requests that still run
		}
		<-ended
		return nil
	}
}
