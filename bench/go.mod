module github.com/oauth-session/caddy-oauth-session/bench

go 1.26.0

require (
	github.com/oauth-session/caddy-oauth-session v0.0.0
	github.com/oauth-session/caddy-oauth-session/e2e v0.0.0
	golang.org/x/sys v0.48.0
)

require (
	github.com/golang-jwt/jwt/v5 v5.3.1 // indirect
	github.com/redis/rueidis v1.0.79 // indirect
	go.etcd.io/bbolt v1.5.0 // indirect
	golang.org/x/net v0.60.0 // indirect
)

replace github.com/oauth-session/caddy-oauth-session => ../

replace github.com/oauth-session/caddy-oauth-session/e2e => ../e2e
