GO ?= go

.PHONY: build
build: ## build bin/shoal
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/shoal ./cmd/shoal
