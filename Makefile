# The lines people and CI run. `make` or `make help` lists them.
# Needed beforehand: git, make and Rust; scripts/setup.sh sees to the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO  := scripts/cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
CYCLES ?= 300
IMAGES ?= 2000
SEED   ?= 7
CASES  ?= 2000
FUZZ   ?= 60

# The same packages and features everywhere, so that no dependency is compiled twice.
BUILD := $(CARGO) build --workspace

.PHONY: help run build test mutants lint fmt sqlx durability power-cut schemathesis fuzz bench deb deb-check pi pi-check pi-emulated setup setup-test setup-lint setup-schemathesis

help: ## What there is to make
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20
	@echo
	@echo "  make run DATA=/var/tmp/lumbung CLOUD_PORT=8080 GATEWAY_PORT=5050"
	@echo "  make durability CYCLES=300 SEED=7        make power-cut IMAGES=2000 SEED=7"

run: setup build ## Cloud, gateway and a demo's worth of scans on this machine; Ctrl-C stops it
	@exec $(TARGET)/debug/demo

build: ## All programs, for development
	$(BUILD) --bins

test: setup-test mutants ## Everything: the stories with real programs, a short kill run, every unit, drawn requests
	$(BUILD) --bins
	$(CARGO) test --workspace --no-fail-fast
	scripts/schemathesis.sh 100 $(SEED)

# First the misbehaving gateway, copied aside, then the plain one in its place (both stay cached).
mutants: ## The gateway that the durability harness must catch, in target/mutants/
	$(BUILD) --bin lumbung-gateway --features lumbung-gateway/mutants
	@install -D $(TARGET)/debug/lumbung-gateway $(TARGET)/mutants/lumbung-gateway
	@$(BUILD) --quiet --bin lumbung-gateway

lint: setup-lint ## Formatting, clippy, checked queries, licences, bans, sources, advisories
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) clippy --workspace --all-targets --features lumbung-gateway/mutants -- -D warnings
	scripts/sqlx.sh check
	scripts/deny.sh

fmt: ## Format the code
	$(CARGO) fmt --all

sqlx: setup-lint ## Make .sqlx/ anew after a change of queries or migrations
	scripts/sqlx.sh prepare

durability: setup-test mutants ## Kill everything at random, CYCLES times; the same SEED draws the same misfortunes
	$(BUILD) --bins
	$(TARGET)/debug/durability --cycles $(CYCLES) --seed $(SEED)

power-cut: setup-test mutants ## What the card holds after IMAGES power cuts at random moments
	$(BUILD) --bins
	$(TARGET)/debug/durability power-cut --images $(IMAGES) --seed $(SEED)

schemathesis: setup-schemathesis ## The running cloud against its own OpenAPI document, as four callers
	$(BUILD) --bin lumbung-cloud
	scripts/schemathesis.sh $(CASES) $(SEED)

fuzz: setup ## The parsers that face the network under libFuzzer, FUZZ seconds each; needs rustup's nightly
	scripts/fuzz.sh $(FUZZ)

bench: setup-test ## Each measure beside its baseline, in release builds; ONLY="login-flood people" names some
	$(BUILD) --release --bins
	$(TARGET)/release/bench $(addprefix --only ,$(ONLY))

deb: setup ## Debian packages of both programs for this machine, in target/packages/
	$(CARGO) build --release -p lumbung-gateway -p lumbung-cloud
	scripts/deb.sh lumbung-gateway release $(TARGET)/packages/
	scripts/deb.sh lumbung-cloud release $(TARGET)/packages/
	@ls -l $(TARGET)/packages/*.deb

deb-check: deb ## Both packages installed, run, removed and purged in a fresh Debian 12; needs root
	scripts/deb-check.sh $(TARGET)/packages/lumbung-gateway_*_$$(dpkg --print-architecture).deb
	scripts/deb-check.sh $(TARGET)/packages/lumbung-cloud_*_$$(dpkg --print-architecture).deb

pi: setup ## The gateway and its Debian package for Raspberry Pis, 64 and 32 bit, in target/packages/
	scripts/pi.sh

pi-check: setup-test pi ## The Pi's programs run here under emulation: scans kept in SQLite and delivered to a real cloud
	@. scripts/apt.sh; command -v qemu-arm-static >/dev/null || apt_install qemu-user-static
	$(BUILD) --bins
	$(CARGO) test --package lumbung-tests --test stories pi::the_ -- --ignored --nocapture --test-threads 1

pi-emulated: setup-test ## A whole Pi 3 under QEMU reads a thermometer on its I2C bus and tells a cloud on this machine
	scripts/pi.sh --no-deb aarch64
	$(BUILD) --bins
	$(CARGO) test --package lumbung-tests --test stories pi::an_emulated -- --ignored --nocapture

setup: ## Install what is missing (Debian, Ubuntu); test and lint install a little more
	@scripts/setup.sh run
setup-test:
	@scripts/setup.sh test
setup-lint:
	@scripts/setup.sh lint
setup-schemathesis:
	@scripts/setup.sh schemathesis
