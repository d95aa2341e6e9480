package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"
)

// serve returns a part that answers requests on ln and closes it in the end.
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
			return fmt.Errorf("%s ended by itself: %w", name, err)
		case <-ctx.Done():
		}
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopLimit)
		defer cancel()
		if server.Shutdown(limit) != nil {
			server.Close() // whoever still waits for an answer gets none
		}
		<-ended
		return nil
	}
}
