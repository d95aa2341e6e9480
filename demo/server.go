package main

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/op"
	"golang.org/x/text/language"
)

const (
	clientID = "demo"
	username = "demo"
	password = "demo"
)

// newAuthorizationServer returns the example server of zitadel/oidc with one client and one user. Access tokens are JWTs,
// refresh tokens are single use.
func newAuthorizationServer(s addresses, tokenLifetime time.Duration) http.Handler {
	client := storage.WebClient(clientID, s.clientSecret, s.site+"/oauth2/callback")
	store := serverStorage{
		Storage:            storage.NewStorageWithClients(oneUser{}, map[string]*storage.Client{clientID: client}),
		tokenLifetime:      tokenLifetime,
		postLogoutRedirect: s.site + "/oauth2/logout/callback",
	}
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	return exampleop.SetupServer(s.issuer, store, logger, false)
}

// serverStorage is the example server's storage with another token lifetime and with a logout redirect URI. Both are fixed
// in the example.
type serverStorage struct {
	*storage.Storage
	tokenLifetime      time.Duration
	postLogoutRedirect string
}

func (s serverStorage) CreateAccessAndRefreshTokens(ctx context.Context, request op.TokenRequest, current string) (id, refreshToken string, expires time.Time, err error) {
	id, refreshToken, _, err = s.Storage.CreateAccessAndRefreshTokens(ctx, request, current)
	return id, refreshToken, time.Now().Add(s.tokenLifetime), err
}

func (s serverStorage) GetClientByClientID(ctx context.Context, id string) (op.Client, error) {
	client, err := s.Storage.GetClientByClientID(ctx, id)
	if err != nil {
		return nil, err
	}
	return serverClient{client, s.postLogoutRedirect}, nil
}

type serverClient struct {
	op.Client
	postLogoutRedirect string
}

func (c serverClient) PostLogoutRedirectURIs() []string { return []string{c.postLogoutRedirect} }

// AccessTokenType selects JWTs, so that the app can show a token's claims.
func (serverClient) AccessTokenType() op.AccessTokenType { return op.AccessTokenTypeJWT }

// IDTokenUserinfoClaimsAssertion puts the name and the e-mail address into the ID token.
func (serverClient) IDTokenUserinfoClaimsAssertion() bool { return true }

// oneUser is a storage.UserStore with the user theUser.
type oneUser struct{}

var theUser = storage.User{
	ID: "demo-user", Username: username, Password: password,
	FirstName: "Demo", LastName: "User", Email: "demo@example.com", EmailVerified: true,
	PreferredLanguage: language.English,
}

func (oneUser) GetUserByID(id string) *storage.User {
	if id != theUser.ID {
		return nil
	}
	return &theUser
}

func (oneUser) GetUserByUsername(name string) *storage.User {
	if name != theUser.Username {
		return nil
	}
	return &theUser
}

// ExampleClientID is required by the interface. The demo does not use its grant type.
func (oneUser) ExampleClientID() string { return storage.ServiceUserID }
