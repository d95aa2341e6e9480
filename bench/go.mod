module github.com/oauth-session/caddy-oauth-session/bench

go 1.26.0

require github.com/oauth-session/caddy-oauth-session v0.0.0

require (
	github.com/redis/rueidis v1.0.79 // indirect
	go.etcd.io/bbolt v1.5.0 // indirect
	golang.org/x/sys v0.48.0 // indirect
)

replace github.com/oauth-session/caddy-oauth-session => ../
