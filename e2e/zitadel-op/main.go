// Command zitadel-op serves the example OpenID Provider of zitadel/oidc on 127.0.0.1 for the end-to-end tests.
//
// Once it serves, it prints one line: `ready` and its issuer. The login form accepts test-user2 with the password
// verysecure.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/op"
)

func main() {
	clientID := flag.String("client-id", "", "the client's `id`")
	secret := flag.String("client-secret", "", "the client's `secret`; empty for a public client")
	redirect := flag.String("redirect-uri", "", "the client's redirect `URI`")
	lifetime := flag.Duration("access-token-lifetime", 5*time.Minute, "expires_in of access tokens")
	flag.Parse()

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	issuer := fmt.Sprintf("http://%s/", ln.Addr())
	if *secret == "" {
		storage.RegisterClients(storage.NativeClient(*clientID, *redirect))
	} else {
		storage.RegisterClients(storage.WebClient(*clientID, *secret, *redirect))
	}
	store := lifetimeStorage{storage.NewStorage(storage.NewUserStore(issuer)), *lifetime}
	logger := slog.New(slog.NewTextHandler(os.Stderr, nil))
	handler := exampleop.SetupServer(issuer, store, logger, true)
	fmt.Println("ready", issuer)
	log.Fatal(http.Serve(ln, handler))
}

// lifetimeStorage changes expires_in of access tokens. The example server's lifetime is fixed at 5 minutes.
type lifetimeStorage struct {
	*storage.Storage
	lifetime time.Duration
}

func (s lifetimeStorage) CreateAccessAndRefreshTokens(ctx context.Context, request op.TokenRequest, current string) (accessTokenID, refreshToken string, expiration time.Time, err error) {
	accessTokenID, refreshToken, _, err = s.Storage.CreateAccessAndRefreshTokens(ctx, request, current)
	return accessTokenID, refreshToken, time.Now().Add(s.lifetime), err
}
