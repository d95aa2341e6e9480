// Command demo shows the whole on one machine: a login server, an app, and Caddy with this module between them. Run it in
// its directory of the checkout, best with `make demo` one level above:
//
//	go run .
//
// It builds Caddy first, unless the environment variable CADDY names one. Everything listens on 127.0.0.1 and keeps its
// data in a temporary directory. Ctrl-C ends it and leaves nothing behind. It works on Unix.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	d := demo{
		checkout:      "..",
		caddy:         os.Getenv("CADDY"),
		tokenLifetime: 30 * time.Second,
		out:           os.Stdout,
	}
	err := d.run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}
