.PHONY: demo test test-go test-model test-e2e lint clean

# The main job on one machine: a login server, an app and Caddy between them.
demo:
	@cd demo && go run .

test: test-go test-e2e test-model

test-go:
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); exit 1; }
	@go vet ./...
	@go test -race ./...

test-e2e:
	@cd e2e && go run ./cmd/setup
	@cd e2e && go vet ./... && go test -race ./...
	@cd demo && go vet ./... && go test -race ./...

# The protocol of refreshing, checked by exhaustive search.
test-model:
	@docs/protocol/check.sh

lint:
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); exit 1; }
	@go vet ./...
	@go tool -modfile=tools/lint/go.mod golangci-lint run ./...

clean:
	@rm -f caddy
