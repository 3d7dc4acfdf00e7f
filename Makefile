# `make` lists the targets. Besides Go, git and make, nothing has to be there: `make test` installs what it needs.
.DEFAULT_GOAL := help
SHELL := /bin/bash

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
TOOL := go tool -modfile=go.tool.mod
FUZZTIME ?= 50000x
BENCH ?= .
BIN ?= bin

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run: ## run the gateway on 127.0.0.1:8080 with its embedded job server; ARGS="--gearman host:4730" are its flags
	go run ./cmd/gateway $(ARGS)

.PHONY: build
build: ## build bin/gateway, static
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$(VERSION)" -o $(BIN)/gateway ./cmd/gateway

.PHONY: deb
deb: export GOOS = linux
deb: build ## build bin/gearman-gateway_VERSION_ARCH.deb; GOARCH=arm64 builds it for that
	deploy/deb/build $(BIN)/gateway '$(VERSION)' $(BIN)

.PHONY: deb-boot
deb-boot: ## as root: install, upgrade, remove and purge the package on a copy of this machine, booted with systemd-nspawn and thrown away
	deploy/deb/testdata/boot

.PHONY: test
test: ## install gearmand and the other languages' clients if missing, then run all tests with the race detector
	.ci/install
	CGO_ENABLED=1 go test -race -shuffle=on ./...

.PHONY: lint
lint: ## check format, vet, staticcheck and go.mod
	@files=$$($(TOOL) gofumpt -l .) && [[ -z $$files ]] || { printf 'make fmt would change:\n%s\n' "$$files"; exit 1; }
	go vet ./...
	GOOS=darwin go vet ./...
	$(TOOL) staticcheck ./...
	go mod tidy -diff

.PHONY: fmt
fmt: ## format the code and tidy go.mod
	$(TOOL) gofumpt -w .
	go mod tidy

.PHONY: fuzz
fuzz: ## run each fuzz test for FUZZTIME (50000x)
	@set -e; grep -rho --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . | sort -u | while read -r _ name; do \
		for file in $$(grep -rl --include='*_test.go' "^func $$name(" .); do \
			go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) "$$(dirname "$$file")"; \
		done; \
	done

.PHONY: bench
bench: build ## measure the gateway beside what one would use instead (9 min at most; BENCH_TIME=2s a round), and write docs/performance.md
	.ci/install bench
	go build -o bin/bench ./bench
	bin/bench run --docs docs

.PHONY: soak
soak: build ## load a gateway for SOAK (1h), and see whether it comes back to where it began
	.ci/install bench
	go build -o bin/bench ./bench
	bin/bench soak --docs docs $(if $(SOAK),--for $(SOAK))

.PHONY: microbench
microbench: ## run the Go benchmarks that match BENCH (.)
	.ci/install
	go test -run '^$$' -bench '$(BENCH)' -benchmem ./...

.PHONY: benchstat
benchstat: ## compare the Go benchmarks of the hot paths that match BENCH (.) with those of the commit BASE
	.ci/install
	bench/benchstat '$(BASE)' '$(BENCH)'

.PHONY: docker-up
docker-up: ## build and start gearmand, the gateway and a webhook sink in containers
	VERSION=$(VERSION) $(COMPOSE) up --build -d

.PHONY: docker-down
docker-down: ## stop the containers and delete their volumes
	$(COMPOSE) down -v

# the plugin of today's Docker if it is there, else the program of before
COMPOSE ?= $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)
