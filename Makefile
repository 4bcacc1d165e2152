# One command each. `make test` is the whole suite against real services; `make unit` is the quick part.
GO      ?= go
BIN     ?= bin
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X penstock/cli.Version=$(VERSION)
T       ?= 30s
SEED    ?=
RATE    ?=
N       ?= 1000000
MOST    ?=

# The linter is built once from the module proxy, outside go.mod, so that its dependencies stay its own.
GOLANGCI_VERSION := v2.13.2
GOLANGCI := $(BIN)/golangci-lint-$(GOLANGCI_VERSION)

.PHONY: run build test unit check lint race fuzz bench bench-archive e2e browser kill faults faults-brokers away ack-redis-dead replay-beside faults-unclean faults-sabotage archive-sabotage services services-down clean bench-admin

run: ## everything in one process, nothing to install
	$(GO) run . dev

build: ## one static binary: ./penstock
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o penstock .

test: services ## every test, against a real redis-server and a real Apache Kafka broker
	test/all.sh

unit: ## the tests that need nothing but Go
	$(GO) test ./...

e2e: services ## the built binary, real Redis, real Kafka, kcat as the consumer, and the kill test
	. test/.run/env && PENSTOCK_REQUIRE_REAL=1 $(GO) test -count=1 -timeout 20m ./test/e2e/...

browser: services ## the page in a real Chromium; pictures of it go to test/.run/screens
	. test/.run/env && PENSTOCK_REQUIRE_REAL=1 $(GO) test -count=1 -timeout 20m ./test/browser

faults: ## breaks everything by SEED for T (default 30s) under load, with a Redis and a Kafka of its own, and checks what was promised
	PENSTOCK_FAULTS=$(T) PENSTOCK_SEED=$(SEED) $(GO) test -count=1 -timeout 0 -v -run '^TestFaults$$' ./test/faults

faults-brokers: ## the same on three brokers: leaders move, partitions have no leader or too few copies
	PENSTOCK_BROKERS=$(T) PENSTOCK_SEED=$(SEED) $(GO) test -count=1 -timeout 0 -v -run '^TestBrokers$$' ./test/faults

away: ## Kafka away for T at RATE deliveries a second (T=10m RATE=2000): all acked, how fast it drains, the most memory
	PENSTOCK_AWAY=$(T) PENSTOCK_FAULTS_RATE=$(RATE) $(GO) test -count=1 -timeout 0 -v -run '^TestKafkaAway$$' ./test/faults

ack-redis-dead: ## p99 of answers with a healthy and a dead Redis, five interleaved rounds of T
	PENSTOCK_ACK_ROUND=$(T) PENSTOCK_FAULTS_RATE=$(RATE) $(GO) test -count=1 -timeout 0 -v -run '^TestAckRedisDead$$' ./test/faults

replay-beside: ## N deliveries are replayed beside RATE a second of others (N=1000000 RATE=200; MOST= events a second of the replay): what the others wait, replayed/s, memory
	PENSTOCK_REPLAY=$(N) PENSTOCK_REPLAY_RATE=$(MOST) PENSTOCK_FAULTS_RATE=$(RATE) $(GO) test -count=1 -timeout 0 -v -run '^TestReplayBeside$$' ./test/faults

faults-unclean: ## three brokers, and one leads that lacks what was acknowledged: it is seen and published again
	PENSTOCK_UNCLEAN=1 PENSTOCK_SEED=$(SEED) $(GO) test -count=1 -timeout 0 -v -run '^TestUncleanLeader$$' ./test/faults

faults-sabotage: ## the same on builds that are broken on purpose: each must be found out
	SEED=$(SEED) test/faults/sabotage.sh

archive-sabotage: ## builds of the archive that are broken on purpose: a test must find out each, within 10,000 simulated crashes
	SEED=$(SEED) archive/sabotage.sh

check: lint ## format, vet, linter, tidy go.mod
	@test -z "$$(gofmt -l .)" || { echo "gofmt would change:"; gofmt -l .; exit 1; }
	$(GO) vet ./...
	$(GO) mod tidy -diff

lint: $(GOLANGCI)
	$(GOLANGCI) run ./...

$(GOLANGCI):
	mkdir -p $(BIN)
	GOBIN=$(CURDIR)/$(BIN) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)
	mv $(BIN)/golangci-lint $@

race: services ## the suite under the race detector
	. test/.run/env && PENSTOCK_REQUIRE_REAL=1 $(GO) test -race -timeout 25m ./...

fuzz: ## every fuzz target for T (default 30s each)
	test/fuzz.sh $(T)

bench: services ## bare fasthttp, with HMAC, Penstock's ack and full path, in one run; PROFILE=1 profiles (bench/README.md)
	. test/.run/env && $(GO) run ./bench

bench-archive: ## the archive beside a bare write+fdatasync loop, bytes written, recovery, memory of indexing; A='-index 10000000 -dir /data'
	$(GO) run ./bench/archivebench $(A)

bench-admin: ## a million deliveries, load at half capacity: what lists and pages take, and ingest beside 50 admins; A='-deliveries 100000'
	$(GO) run ./bench admin $(A)

services: ## start redis-server and Kafka for the tests, and install Chromium (idempotent)
	test/browser.sh
	test/services.sh up

services-down: ## end what `make services` started
	test/services.sh down

clean: services-down
	rm -rf penstock $(BIN) test/.run bench/out
