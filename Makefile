.PHONY: demo test setup test-go test-fuzz test-model test-e2e test-demo test-tomcat test-servers test-keycloak test-apps test-scenes bench bench-peers bench-scale bench-stores lint fuzz vuln clean

# The main job on one machine: a login server, an app and Caddy between them.
demo:
	@cd demo && go run .

# A busy machine may need longer than the ten minutes that go test allows, and
# packages without tests have nothing to say.
gotest = go test -timeout 60m
tested = $$(go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{end}}' ./...)

test: setup test-go test-fuzz
	@$(MAKE) --no-print-directory -j2 test-e2e test-demo
	@$(MAKE) --no-print-directory test-model

# What the tests need and the machine lacks. Quiet when nothing is missing.
setup:
	@cd e2e && go run ./cmd/setup

test-go:
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); exit 1; }
	@go vet ./...
	@$(gotest) -race $(tested)
	@$(gotest) -run 'Cost|Allocations' ./caddymodule ./handler ./session/keeper ./session/redis
	@out=$$($(gotest) -run '^$$' -bench . -benchtime 1x ./handler ./session/... 2>&1) || { echo "$$out"; exit 1; }
	@cd bench && go vet ./... && $(gotest) -race $(tested)

test-e2e:
	@cd e2e && go vet ./... && $(gotest) -race $(tested)

test-demo:
	@cd demo && go vet ./... && $(gotest) -race $(tested)

# Spellings of a protected path against a real Tomcat, which Maven downloads. Needs
# Java. Not part of make test, where a stand-in reads paths as Tomcat does.
test-tomcat:
	@cd e2e && TOMCAT=1 go test -race -count 1 -v -run '^TestTomcat$$' .

# Whole visits at Ory Hydra. Not part of make test: a clean checkout downloads some
# hundred modules for Hydra and builds for minutes.
test-servers: setup
	@cd e2e && SERVERS=1 $(gotest) -race -count 1 -v -run '^TestHydra$$' .

# Whole visits at Keycloak, which Maven downloads. Needs Java 17 or later.
test-keycloak: setup
	@cd e2e && KEYCLOAK=1 $(gotest) -race -count 1 -v -run '^TestKeycloak$$' .

# JupyterLab, Streamlit and Node-RED in a real browser (docs/apps.md). Not part of make
# test: the first run downloads some hundred megabytes with pip and npm.
test-apps:
	@cd e2e && go run ./cmd/setup apps
	@cd e2e && APPS=1 $(gotest) -race -count 1 -v -run '^TestApps' .

# Thousands of sessions while their authorization server is in trouble, and storms
# over three instances at a slow one. A quarter of an hour; make test has a short version.
test-scenes:
	@cd e2e && FULL=1 $(gotest) -count 1 -parallel 3 -v -run '^TestScenes' .

# A moment of fuzzing after all that was ever found to be interesting.
test-fuzz:
	@FUZZTIME=1000x tools/fuzz handler oauth session/keeper session/seal session/bolt session/redis >/dev/null || \
		{ echo 'make fuzz tells more; the input that failed is in testdata/fuzz'; exit 1; }

# The protocol of refreshing, checked by exhaustive search.
test-model:
	@docs/protocol/check.sh

lint:
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); exit 1; }
	@go vet ./...
	@go tool -modfile=tools/lint/go.mod golangci-lint run ./...
	@cd bench && go vet ./... && go tool -modfile=../tools/lint/go.mod golangci-lint run ./...

# Every parser of foreign bytes, FUZZTIME each (10m), one line a target. What it
# finds is kept by tools/fuzz -keep.
fuzz:
	@tools/fuzz

# Known vulnerabilities of dependencies. Asks a database on the internet.
vuln:
	@tools/vuln/check.sh

# What a login costs against plain reverse_proxy, as ratios. SESSIONS=1,1000000
# are the numbers of sessions, BENCHFLAGS=-gate the flags; -h lists them.
bench:
	@cd bench && go run ./proxy $(if $(SESSIONS),-sessions $(SESSIONS)) $(BENCHFLAGS)

# Other login proxies for make bench to stand beside, at the versions of
# bench/peers/go.mod. Half a minute.
bench-peers:
	@cd bench/peers && GOWORK=off go build -trimpath -o bin/ tool

# What a million sessions take, in a file and in Redis. Half an hour, 13 GB of disk.
bench-scale:
	@cd bench && go run ./scale

# What one instance does with a file and with a Redis of its own, as ratios.
bench-stores:
	@cd bench && go run ./scale -compare -sessions 50000

clean:
	@rm -f caddy
