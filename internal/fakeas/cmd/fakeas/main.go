// Command fakeas runs the fake authorization server as a program, to try out a
// configuration by hand. It listens on a loopback address only. Requests below
// /ctl/ change its behaviour.
//
//	fakeas -port 9000 -redirect https://app.localhost/oauth2/callback
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"time"

	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "fakeas:", err)
		os.Exit(1)
	}
}

func run() error {
	port := flag.Int("port", 0, "port on 127.0.0.1; 0 takes a free one")
	client := flag.String("client", "app", "client identifier")
	secret := flag.String("secret", "", "client secret; none makes a public client")
	method := flag.String("auth", "", "client authentication method (default by secret: client_secret_basic or none)")
	redirect := flag.String("redirect", "", "the client's redirect URI")
	signedOut := flag.String("signed-out", "", "the client's post-logout redirect URI")
	backchannel := flag.String("backchannel", "", "the client's back-channel logout URI")
	lifetime := flag.Duration("lifetime", 5*time.Minute, "lifetime of access tokens")
	flag.Parse()

	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(*port)))
	if err != nil {
		return err
	}
	s := fakeas.New(fakeas.Options{
		URL: "http://" + listener.Addr().String(),
		Clients: []fakeas.Client{{
			ID: *client, Secret: *secret, AuthMethod: *method, RedirectURIs: []string{*redirect},
			PostLogoutRedirectURIs: []string{*signedOut}, BackchannelLogoutURI: *backchannel,
		}},
	})
	s.Set(func(k *fakeas.Knobs) { k.AccessTokenLifetime = *lifetime })

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	server := &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() {
		s.Close()
		_ = server.Close()
	})
	fmt.Println(s.URL)
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
