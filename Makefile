# make help lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
GO ?= go
# Tools have a module of their own: they would add hundreds of lines to go.mod.
TOOL := $(GO) tool -modfile=.tools/go.mod

.DEFAULT_GOAL := build
.PHONY: help build cross demo test deploy-check lint fmt fuzz fuzz-short corpus release release-test vuln bench lab matrix

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/shoal
	CGO_ENABLED=0 $(GO) build -buildvcs=auto -trimpath -o bin/shoal ./cmd/shoal

# Unoptimised, because nobody runs it: that takes two thirds of the time.
cross: ## see that shoal compiles for the other platforms of a release
	GOOS=linux GOARCH=arm64 CGO_ENABLED=0 $(GO) build -gcflags=all='-N -l' -o /dev/null ./cmd/shoal
	GOOS=darwin GOARCH=arm64 CGO_ENABLED=0 $(GO) build -gcflags=all='-N -l' -o /dev/null ./cmd/shoal

demo: build ## watch five nodes share an image on this machine (ARGS=--keep leaves them running)
	bin/shoal demo $(ARGS)

# The end-to-end tests come last and alone: they need the processors, and the
# cache of test results does not know what programs they run. What has a single
# goroutine (PURE) has no races, and takes ten times as long to show it.
PURE := /p2p/plan$$|/benchmarks/sim/crowd$$
test: ## run every test; as root on Debian, install what the end-to-end tests need and run those too
	.ci/install-deps
	{ $(GO) test -race -timeout 15m -json $$($(GO) list ./... | grep -vE '/e2e$$|$(PURE)') && \
	  $(GO) test -timeout 15m -json $$($(GO) list ./... | grep -E '$(PURE)') && \
	  $(GO) test -timeout 10m -json -count=1 ./cmd/shoal/e2e; } | $(GO) -C .tools run ./testsum

# A module of its own, as helm and the types of Kubernetes are large. The cache of
# test results does not know what helm reads.
deploy-check: ## check the Helm chart and the compose file by helm, Kubernetes' types and compose
	$(GO) -C .tools/deploy test -count=1 ./...

lint: ## the linters, the layer rule and the documentation rule
	$(TOOL) golangci-lint run ./...

fmt: ## format as the linters want it
	$(TOOL) golangci-lint fmt ./...

fuzz: ## run every fuzz target for a time each (FUZZTIME=1m)
	.ci/fuzz $(FUZZTIME)

fuzz-short: ## run every fuzz target a few times, from what was kept
	.ci/fuzz short

corpus: ## keep what "make fuzz" has found and testdata does not reach yet
	.ci/corpus

release: ## build dist/: archives, checksums, bills of materials, for PLATFORMS="linux/amd64 ..." or all
	.ci/release $(PLATFORMS)

release-test: ## build a release twice and compare; build for darwin/arm64, or PLATFORMS, too
	PLATFORMS="$(PLATFORMS)" $(GO) -C .tools test -count=1 ./release

# It needs the internet, so no other target may depend on it. 3 is its word for "found some".
vuln: ## look for known vulnerabilities in what shoal calls
	@$(TOOL) govulncheck ./... || { code=$$?; [ $$code = 3 ] || \
	  echo "vuln: nothing was looked up: govulncheck asks the Go vulnerability database, which needs the internet" >&2; exit $$code; }

lab: ## measure crowds of real nodes, as root (ARGS="-only six-one-blob -runs 1" measures less)
	$(GO) run ./benchmarks/lab $(ARGS)

matrix: ## compare pulls through shoal with plain ones beside bad peers, as root (ARGS="-only ^frozen/ -runs 1")
	$(GO) run ./benchmarks/lab matrix $(ARGS)

bench: ## measure single nodes beside nginx and others, as root (ARGS="-only blob -runs 1" measures less)
	.ci/install-deps
	$(GO) run ./benchmarks/bench $(ARGS)
