.PHONY: demo test setup test-go test-model test-e2e lint clean

# The main job on one machine: a login server, an app and Caddy between them.
demo:
	@cd demo && go run .

test: setup test-go test-e2e test-model

# What the tests need and the machine lacks. Quiet when nothing is missing.
setup:
	@cd e2e && go run ./cmd/setup

test-go:
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); exit 1; }
	@go vet ./...
	@go test -race ./...

test-e2e:
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
