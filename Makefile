# The one door to everything a developer does; `make` alone says what there is.
#
# Owns the environment (.venv) and the order of things. What is compiled and run in C stands in native/check.mk.
# `make setup` is a prerequisite of nearly all and takes no time when nothing changed.

.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
BIN := .venv/bin
STAMP := .venv/.stamp
DEV_STAMP := .venv/.stamp-dev
NODES ?= 2
SECONDS ?= 5
BACKEND ?= udp
ARGS ?=
# Tests at a time, a file each: they wait for timeouts and other programs more than they compute.
JOBS ?= 3
JSON ?= bench/results/full.json

# The first interpreter that is new enough and can make a virtual environment with pip in it.
FIND_PYTHON = for python in $(PYTHON) python3.11 python3 python3.12 python3.13 python3.14; do \
	"$$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; \
	python=; done
HAS_PYTHON_H = import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))

PROSE := README.md CHANGELOG.md $(wildcard docs/*.md docs/benchmarks/*.md bench/*.md bench/pages/*.md deploy/*.md tests/*.md tests/*/*.md)

include native/check.mk
include deploy/release.mk

.PHONY: help setup daemon packages demo test test-packages test-kernels kernel-packages check clean bench bench-quick bench-scale bench-soak bench-profile bench-docs bench-micro bench-packages

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{ printf "  make %-14s %s\n", $$1, $$2 }'
	@echo "Variables: BACKEND=udp NODES=2 SECONDS=5 (demo), ARGS='-k ping' (test: more for pytest), PYTHON=... (setup)"

setup: daemon $(DEV_STAMP) ## the daemon, and what `make check` and `make test` need; quick when nothing changed

daemon: packages $(STAMP) ## system packages, .venv, the C extension: what a host needs

# Every tool is looked for by what it does; only what is missing is installed, and only root can do that.
packages:
	@missing=; need() { command -v "$$1" >/dev/null 2>&1 || missing="$$missing $$2"; }; \
	need gcc gcc; need ip iproute2; need iperf3 iperf3; need ping iputils-ping; need nsenter util-linux; \
	echo '#include <stdio.h>' | cpp >/dev/null 2>&1 || missing="$$missing libc6-dev"; \
	if [ ! -x $(BIN)/python ]; then $(FIND_PYTHON); \
		[ -n "$$python" ] || { python=python3; missing="$$missing python3-venv"; }; \
		"$$python" -c '$(HAS_PYTHON_H)' 2>/dev/null || missing="$$missing python3-dev"; fi; \
	$(INSTALL_MISSING)

# Installs what $missing names, or says what somebody has to install.
INSTALL_MISSING = [ -z "$$missing" ] && exit 0; \
	if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
		echo "missing; install as root (Debian names): apt-get install$$missing" >&2; exit 1; fi; \
	echo "installing:$$missing"; export DEBIAN_FRONTEND=noninteractive; \
	apt-get install -qq -y --no-install-recommends $$missing >/dev/null 2>&1 || \
	{ apt-get update -qq && apt-get install -qq -y --no-install-recommends $$missing >/dev/null; }

$(STAMP): pyproject.toml setup.py native/build_ffi.py native/flags.txt $(wildcard native/*.c native/*.h)
	@if [ ! -x $(BIN)/python ]; then $(FIND_PYTHON); \
		[ -n "$$python" ] || { echo "no Python 3.11 or newer that can make a virtual environment" >&2; exit 1; }; \
		echo "making .venv with $$("$$python" --version)"; "$$python" -m venv .venv; fi
	@echo "building the C extension and installing into .venv"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

# The libraries that pyproject.toml names for developers ($(1): dev or bench), without building the extension again.
define extra
$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["$(1)"], sep="\n")' | \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r /dev/stdin
endef

$(DEV_STAMP): pyproject.toml | $(STAMP)
	@echo "installing what developers need into .venv"
	@$(call extra,dev)
	@touch $@

demo: daemon ## two hosts, pods and real traffic in namespaces, in under a minute (BACKEND=compare: udp, vxlan, host-gw)
	@$(BIN)/python -m bench.demo --backend $(BACKEND) --nodes $(NODES) --seconds $(SECONDS)

bench: bench-packages ## overlays against kernel VXLAN: the rows that matter, at most 40 minutes (ARGS=--all for all)
	@$(BIN)/python -m bench $(ARGS)

bench-quick: bench-packages ## the core ratios, at most 100 seconds
	@$(BIN)/python -m bench --quick $(ARGS)

bench-scale: bench-packages ## 5,000 nodes in etcd, 1,000 changes a second, in three minutes (ARGS='--seconds 60' for more)
	@missing=; need() { command -v "$$1" >/dev/null 2>&1 || missing="$$missing $$2"; }; \
	need etcd etcd-server; need etcdctl etcd-client; $(INSTALL_MISSING)
	@$(BIN)/python -m bench scale $(ARGS)

bench-soak: bench-packages ## whether a daemon grows by an hour of load (ARGS='--minutes 5' for less)
	@$(BIN)/python -m bench soak $(ARGS)

bench-profile: bench-packages ## where the processor time goes, beside VXLAN, in two minutes; needs perf
	@missing=; command -v perf >/dev/null 2>&1 || missing=linux-perf; $(INSTALL_MISSING)
	@$(BIN)/python -m bench profile $(ARGS)

# Against the C code itself, with the programs of bench/micro, each built with the archive of all native/*.c.
MICRO := $(patsubst bench/micro/%.c,%,$(wildcard bench/micro/*.c))
$(eval $(call programs,micro,$(CC),,,bench/micro))

bench-micro: packages $(MICRO:%=$(CHECK_BUILD)/micro/run/%) ## checksum, lookup, segment, coalesce: best of many
	@for program in $(filter-out packages,$^); do "$$program" && echo || exit 1; done

bench-docs: daemon ## docs/benchmarks.md, its figures and plots, from a JSON file (JSON=bench/results/full.json)
	@$(BIN)/python -c 'import matplotlib' 2>/dev/null || \
		{ $(call extra,bench); }
	@$(BIN)/python -m bench docs $(JSON)

bench-packages: daemon
	@missing=; need() { command -v "$$1" >/dev/null 2>&1 || missing="$$missing $$2"; }; \
	PATH="$$PATH:/usr/sbin:/sbin"; need sockperf sockperf; need ethtool ethtool; \
	$(INSTALL_MISSING)

test: test-packages ## every test: C with sanitizers, Python, namespaces (as root)
	@$(MAKE) -j2 --output-sync=target c-test c-test-tsan
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

# What only tests need: other programs that stand around an overlay, and a registry. tests/bare/tests has one of each.
test-packages: bench-packages setup
	@missing=; need() { command -v "$$1" >/dev/null 2>&1 || missing="$$missing $$2"; }; \
	PATH="$$PATH:/usr/sbin:/sbin"; need iptables iptables; need nft nftables; need openssl openssl; \
	need etcd etcd-server; need etcdctl etcd-client; need systemd-analyze systemd; need perf linux-perf; \
	need prometheus prometheus; need chromium chromium; need chromedriver chromium-driver; \
	[ -x /usr/lib/cni/bridge ] || missing="$$missing containernetworking-plugins"; \
	$(INSTALL_MISSING)

# In guests under software emulation, a core each, see tests/kernels/README.md. C programs are built here and run there.
KERNEL ?= 6.1 6.12
MINUTES ?= 180
test-kernels: test-packages kernel-packages $(C_TEST_PLAIN_PROGRAMS) ## tests on Debian's stock kernels, emulated (KERNEL=6.1 ARGS=tests/netns/test_ipv6.py)
	@failed=$$(mktemp); for kernel in $(KERNEL); do \
		{ $(BIN)/python tests/kernels "$$kernel" --minutes $(MINUTES) $${RUN:+--run "$$RUN"} $(ARGS) || \
		echo "$$kernel" >>"$$failed"; } 2>&1 | sed -u "s/^/$$kernel| /" & \
	done; wait; [ ! -s "$$failed" ]; status=$$?; rm "$$failed"; exit $$status

kernel-packages:
	@missing=; need() { command -v "$$1" >/dev/null 2>&1 || missing="$$missing $$2"; }; \
	PATH="$$PATH:/usr/sbin:/sbin"; need qemu-system-x86_64 qemu-system-x86; need depmod kmod; need setpriv util-linux; need cpio cpio; \
	$(INSTALL_MISSING)

check: setup ## formatting, types, layers, the width of prose and the C compiler's warnings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@! LC_ALL=C.UTF-8 grep -nE '^[^|].{120,}' $(PROSE) || { echo 'prose is wrapped at 120 columns (table rows apart)'; exit 1; }
	@! LC_ALL=C.UTF-8 grep -nE '^.{180,}' README.md $(wildcard docs/*.md) || { echo 'a table row so long is easier to read as a list'; exit 1; }
	@$(MAKE) native-check

# What native/check.mk brings, for the list above.
native-check: ## the C compiler's warnings are errors, under gcc and clang
c-test: ## C tests with the address and undefined-behaviour sanitizers
c-test-tsan: ## C tests with the thread sanitizer
fuzz: ## every fuzzer for T=60 seconds each, of C and of the documents that others hand us

fuzz: fuzz-documents

.PHONY: fuzz-documents
fuzz-documents: setup
	@$(BIN)/python tests/untrusted.py $(T)

$(patsubst %,$(CHECK_BUILD)/fuzz/%,$(NATIVE_C:native/%.c=%.o) $(FUZZERS:%=run/%)): | fuzz-packages

.PHONY: test-arm64 arm64-packages arm64-guest-packages test-bare
test-bare: ## README.md's two commands in a bare Debian 12, as they are written; takes minutes
	@missing=; need() { command -v "$$1" >/dev/null 2>&1 || missing="$$missing $$2"; }; \
	need mmdebstrap mmdebstrap; need git git; need unshare util-linux; $(INSTALL_MISSING)
	@tests/bare/run

test-arm64: setup c-test-arm64 $(ARM64_GUEST_PROGRAMS) arm64-guest-packages ## on aarch64, emulated: the C tests, and an overlay under Debian's kernel
	@$(BIN)/python tests/kernels arm64 --minutes 30 --run \
		'set -e; for program in plain_*; do ./$$program; done; python3 -m bench.demo --seconds 1'

arm64-guest-packages: kernel-packages
	@missing=; need() { command -v "$$1" >/dev/null 2>&1 || missing="$$missing $$2"; }; \
	need mmdebstrap mmdebstrap; need qemu-system-aarch64 qemu-system-arm; $(INSTALL_MISSING)

arm64-packages:
	@missing=; need() { command -v "$$1" >/dev/null 2>&1 || missing="$$missing $$2"; }; \
	need $(CROSS) gcc-aarch64-linux-gnu; need qemu-aarch64 qemu-user; \
	echo '#include <stdio.h>' | $(CROSS) -E - >/dev/null 2>&1 || missing="$$missing libc6-dev-arm64-cross"; \
	$(INSTALL_MISSING)

# clang and its fuzzing runtime are large and only this needs them. The runtime's package is named after the version.
.PHONY: fuzz-packages
fuzz-packages:
	@missing=; command -v clang >/dev/null || missing="$$missing clang"; \
	echo 'int LLVMFuzzerTestOneInput(const char *d, long n) { return d && n < 0; }' | \
	clang -fsanitize=fuzzer -x c - -o /dev/null 2>/dev/null || missing="$$missing libclang-rt-14-dev"; \
	$(INSTALL_MISSING)

clean: ## removes what was built, not .venv
	rm -rf build dist *.egg-info udpbackend/_native*.so $(STAMP) $(DEV_STAMP) .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
