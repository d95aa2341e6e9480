// Command demo runs a login server, an app, and Caddy with this module between them on one machine. Run it with `make demo`
// in the root of the checkout, or in its own directory:
//
//	go run .
//
// The demo builds Caddy first, unless the environment variable CADDY contains the path of one. All parts listen on
// 127.0.0.1 and store their data in a temporary directory. Ctrl-C ends the demo and removes the data. It works on Unix.
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
