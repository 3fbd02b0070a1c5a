# The two commands for a newcomer are `make run` and `make test`; README.md says what they show.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.PHONY: run test test-setup soak speed lint fuzz release

TARGET_DIR := $(abspath $(or $(CARGO_TARGET_DIR),target))
# Tests and scripts append a line here for each thing that this machine cannot run.
# (No name of ours that the environment passes to xksd may begin with XKSD_: those are settings.)
export NOT_RUN_FILE := $(TARGET_DIR)/not-run.txt
# A Python with botocore, for the tests that want a signer which is not ours.
export TEST_PYTHON := $(TARGET_DIR)/python/bin/python
# The software token kryoptic, for the tests that want real modules.
export KRYOPTIC_MODULE := $(TARGET_DIR)/kryoptic/debug/libkryoptic_module.so

# SoftHSM2 behind p11-kit server, for the tests that want an HSM across a network.
export NETWORK_HSM_DIRECTORY := $(TARGET_DIR)/p11-kit

# Root file systems for container images, for the tests of deploy/container and deploy/compose.
export CONTAINER_ROOTS := $(TARGET_DIR)/container-roots

# A minimal Debian, for the tests that install packages.
export PACKAGES_DIRECTORY := $(TARGET_DIR)/packages

# Prometheus's own checker, for the tests of /metrics; one in PATH will do as well.
export PROMTOOL := $(TARGET_DIR)/promtool/promtool

# Helm, for the tests of the chart; one in PATH is tried, too.
export HELM_DIRECTORY := $(TARGET_DIR)/helm

# make run LISTEN=127.0.0.1:9000 OPS_LISTEN=... PREFIX=... REGION=... KEYS=a,b
# On the command line only: a PREFIX or REGION of the environment is about something else.
option = $(if $(filter command,$(origin $(1))),$(2) '$($(1))')
RUN_OPTIONS = $(call option,LISTEN,--listen) $(call option,OPS_LISTEN,--ops-listen) \
	$(call option,PREFIX,--prefix) $(call option,REGION,--region) $(call option,KEYS,--keys)

run:
	@exec softhsm-setup/run.sh $(RUN_OPTIONS)

# All that needs a network or root.
test-setup:
	@softhsm-setup/install-packages.sh --for test
	cargo fetch --locked
	cargo fetch --locked --manifest-path tests/fuzz/Cargo.toml
	tests/kryoptic/build.sh '$(TARGET_DIR)/kryoptic'
	tests/p11-kit/build.sh '$(NETWORK_HSM_DIRECTORY)'
	tests/container/roots.sh '$(CONTAINER_ROOTS)' '$(NETWORK_HSM_DIRECTORY)'
	tests/deploy/root.sh '$(PACKAGES_DIRECTORY)'
	tests/promtool/fetch.sh '$(dir $(PROMTOOL))'
	if [[ ! -x $(TEST_PYTHON) ]]; then python3 -m venv '$(TARGET_DIR)/python'; fi
	'$(TEST_PYTHON)' -m pip install --quiet --disable-pip-version-check --require-hashes \
		-r tests/python-requirements.txt -r tests/deploy/python-requirements.txt
	tests/helm/fetch.sh '$(HELM_DIRECTORY)' '$(TEST_PYTHON)'

# Builds first: tests load the shim's library and run the daemon, which `cargo test` need not build.
test: test-setup
	@mkdir -p '$(TARGET_DIR)'
	: >'$(NOT_RUN_FILE)'
	status=0
	{ cargo build --workspace --locked --offline && cargo test --workspace --locked --offline --no-fail-fast; } || status=$$?
	sort -u '$(NOT_RUN_FILE)' | sed 's/^/NOT RUN: /'
	echo "$$(sort -u '$(NOT_RUN_FILE)' | wc -l) not run on this machine"
	exit $$status

# The long forms of the reliability tests, about 25 minutes, and the table in docs/reliability.md.
# SOAK_ONLY=chaos runs one of them: tests/reliability/soak.rs has the names.
soak: test-setup
	@tests/soak.sh

# The figures of docs/performance.md, each beside its floor, about 6 minutes; SPEED_LONG=1: well over an hour.
# SPEED_ONLY=cpu,start measures these parts only: tests/speed.sh has the names.
speed: test-setup
	@tests/speed.sh

lint:
	@cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	if command -v shellcheck >/dev/null; then
		shellcheck -x softhsm-setup/*.sh tests/kryoptic/build.sh tests/p11-kit/build.sh tests/promtool/fetch.sh tests/helm/fetch.sh \
			tests/debian.sh tests/container/roots.sh deploy/container/*.sh tests/soak.sh tests/speed.sh tests/deploy/root.sh tests/deploy/packages/lifecycle.sh \
			deploy/packages/*.sh deploy/packages/debian/{postinst,prerm,postrm} deploy/release/*.sh .ci/run
	else
		echo 'NOT RUN: shellcheck (package shellcheck)'
	fi

# A short run of each fuzz target; tests/fuzz says how to run one for longer.
fuzz:
	@tests/fuzz/run.sh

# All that a release consists of, in one directory: docs/release.md. RELEASE_OPTIONS=--untagged tries it.
release:
	@deploy/release/release.sh $(RELEASE_OPTIONS) '$(TARGET_DIR)/release-files'
