package handler_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/oauth-session/caddy-oauth-session/handler"
	"github.com/oauth-session/caddy-oauth-session/internal/fakeas"
	"github.com/oauth-session/caddy-oauth-session/oauth"
	"github.com/oauth-session/caddy-oauth-session/session/keeper"
	"github.com/oauth-session/caddy-oauth-session/session/memory"
	"github.com/oauth-session/caddy-oauth-session/session/seal"
)

// app is the web app. It has no code for logins or tokens.
func app(w http.ResponseWriter, r *http.Request) {
	user, _ := handler.FromContext(r.Context())
	claim, _ := user.Claim("email")
	email, _ := handler.ClaimText(claim)
	fmt.Fprintf(w, "Hello %s, your e-mail address is %s.\n", user.Subject, email)
	// The access token of the user, for requests to an API.
	_, hasToken := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	fmt.Fprintf(w, "The request has an access token: %t.\n", hasToken)
}

// site is a protected app with the parts that have to be closed.
type site struct {
	http.Handler
	vault *keeper.Vault
	store *memory.Store
}

// protect puts an app behind a login. The origin is the public address of the site.
func protect(app http.Handler, config oauth.Config, origin string, logger *zap.Logger) (*site, error) {
	if err := handler.CheckOrigin(origin); err != nil {
		return nil, err
	}
	client, err := oauth.New(config)
	if err != nil {
		return nil, err
	}
	// Sessions in memory end with the process, and so may the key. With another
	// store, keep the text of Key.Encode secret and read it with seal.ParseKey.
	store := memory.New()
	ring, err := seal.NewKeyRing(seal.NewKey())
	if err != nil {
		return nil, err
	}
	vault := keeper.NewVault(store)
	sessions, err := keeper.New(keeper.Config{
		Vault:     vault,
		Site:      seal.NewSite(ring, config.Issuer, config.ClientID, ""),
		Refresher: handler.Refresher{Client: client},
		Observe:   handler.NewObserver(logger),
	})
	if err != nil {
		return nil, err
	}
	h, err := handler.New(handler.Config{
		Client: client,
		Keeper: sessions,
		Logger: logger,
		Origin: func(*http.Request) (string, error) { return origin, nil },
	})
	if err != nil {
		return nil, err
	}
	return &site{Handler: h.Middleware(app), vault: vault, store: store}, nil
}

// Close ends the site after the server's Shutdown. It writes refreshed tokens that
// the store has not taken yet, and then closes the store.
func (s *site) Close(ctx context.Context) error {
	return errors.Join(s.vault.Close(ctx), s.store.Close())
}

// Example protects an app with a login. A browser opens it, and is sent to the
// authorization server and back.
func Example() {
	// The authorization server of this example logs every browser in as alice.
	provider := fakeas.New(fakeas.Options{})
	provider.Set(func(k *fakeas.Knobs) { k.SigningAlg = "ES256" })
	provider.SetUser(fakeas.User{Name: "alice", Claims: map[string]any{"email": "alice@example.com"}})
	issuer := httptest.NewServer(provider)
	defer issuer.Close()
	provider.URL = issuer.URL

	server := httptest.NewUnstartedServer(nil)
	origin := "https://" + server.Listener.Addr().String()
	provider.AddClient(fakeas.Client{ID: "app", Secret: "secret", RedirectURIs: []string{origin + "/oauth2/callback"}})

	config := oauth.Config{
		Issuer:       issuer.URL,
		ClientID:     "app",
		ClientSecret: func() (string, error) { return "secret", nil },
	}
	site, err := protect(http.HandlerFunc(app), config, origin, zap.NewNop())
	if err != nil {
		fmt.Println(err)
		return
	}
	server.Config.Handler = site
	server.StartTLS()

	browser := server.Client()
	browser.Jar, _ = cookiejar.New(nil)
	request, _ := http.NewRequest(http.MethodGet, origin+"/", nil)
	request.Header.Set("Accept", "text/html") // a navigation; a script would get status 401
	response, err := browser.Do(request)
	if err != nil {
		fmt.Println(err)
		return
	}
	body, _ := io.ReadAll(response.Body)
	_ = response.Body.Close()
	fmt.Print(string(body))

	server.Close() // http.Server.Shutdown in a real program
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := site.Close(ctx); err != nil {
		fmt.Println(err)
	}
	// Output:
	// Hello alice, your e-mail address is alice@example.com.
	// The request has an access token: true.
}
