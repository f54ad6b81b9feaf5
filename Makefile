# SPDX-License-Identifier: Apache-2.0
# pycni: `make help` lists the targets. Everything runs as root, from a clean clone, on Debian 12 or
# Debian 13; each target installs what it needs.

PYTHON ?= /usr/bin/python3
VENV   ?= .venv
BIN     = $(VENV)/bin
PACKAGES = clang libbpf-dev linux-libc-dev libbpfcc libnftables1 python3-venv
# for people who look around in the lab
LAB_PACKAGES = iproute2
# the runtimes and reference plugins that the tests drive
TEST_PACKAGES = iproute2 iptables containerd runc podman conmon containernetworking-plugins \
	busybox-static dnsmasq-base bird2 systemd etcd-server openssl iperf3 libseccomp-dev pkg-config $(VAGRANT) \
	qemu-system-x86 debootstrap debian-archive-keyring e2fsprogs kmod lz4 zstd $(CHECK_PACKAGES)
# gcc: the sanitizers of the launcher's tests
CHECK_PACKAGES = gcc clang-format clang-tidy shellcheck
# Ubuntu's archive has no Vagrant: there its test is skipped, and says so
VAGRANT = $(shell . /etc/os-release; [ "$$ID" != debian ] || echo vagrant)

# what `make check` runs side by side, the longest first
STATIC = check-tidy check-types check-layers check-python check-c check-words check-shell
C_FILES = $(wildcard bpf/*.[ch] bpf/lib/*.h pycni/*/*/*.[ch] tests/*/*.[ch])
SHELL_FILES = .ci/run $(wildcard tests/vm/guest/*.sh vagrant/*.sh)
# Each worker has a machine of its own (tests/support/worker.py). One more than there are processors, since
# tests wait a lot.
WORKERS = --numprocesses $(shell expr $$(nproc) + 1) --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help packages test-packages lab test check check-units $(STATIC) test-matrix test-modes lint guests conformance fuzz soak chaos cluster test-cluster kills test-kube e2e image test-image image-cached manifests bench bench-quick bench-cni \
	bench-lookups test-cnitool test-kernels vagrant-test vagrant-smoke wheel wheels clean

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

# $(call install,PACKAGES): with apt, if any of them is missing
install = @dpkg-query -W -f='$${db:Status-Status}\n' $(1) 2>/dev/null | grep -cx installed | \
	grep -qx $(words $(1)) || { apt-get update -q && \
	DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $(1); }

packages: ## Debian packages that pycni and its lab need
	$(call install,$(PACKAGES) $(LAB_PACKAGES))

test-packages: packages ## Debian packages that its tests need
	$(call install,$(TEST_PACKAGES))

$(VENV)/lab: pyproject.toml | packages
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -e .
	@touch $@

$(VENV)/test: $(VENV)/lab | test-packages
	$(BIN)/pip install -q -e .[test]
	@touch $@

$(VENV)/fuzz: $(VENV)/test
	$(BIN)/pip install -q -e .[fuzz]
	@touch $@

$(VENV)/bench: $(VENV)/test
	$(BIN)/pip install -q -e .[bench]
	@touch $@

lab: $(VENV)/lab ## two nodes, three pods each: bring up, prove, take down
	$(BIN)/pycni lab run --nodes 2 --pods 3

check: $(VENV)/test ## style, types, layers, C, spelling, unit tests, side by side: before a commit
	@$(MAKE) --no-print-directory --jobs --output-sync=target check-units $(STATIC)

test: $(VENV)/test guests image-cached ## everything that CI runs
	@$(MAKE) --no-print-directory --jobs --output-sync=target $(STATIC)
	$(BIN)/pytest $(WORKERS) --durations=25 || { [ $$? = 1 ] && cd tests && ../$(BIN)/python -m again; }

test-matrix: $(VENV)/test ## every cell of the correctness matrix between nodes, 10 minutes
	PYCNI_MATRIX=whole $(BIN)/pytest tests/netns/test_matrix.py tests/netns/test_differential.py

test-modes: $(VENV)/test ## all ways between nodes, over both underlays, and live switches from way to way
	PYCNI_MATRIX=whole $(BIN)/pytest -n 1 $(foreach one,direct ipip modes,$(wildcard tests/netns/test_$(one)*.py))

lint: check-python check-types check-layers ## of `make check` what takes seconds

check-python: | $(VENV)/test
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .

check-types: | $(VENV)/test
	$(BIN)/mypy

check-layers: | $(VENV)/test
	$(BIN)/lint-imports

check-c: | $(VENV)/test
	clang-format --dry-run -Werror $(C_FILES)

check-tidy: | $(VENV)/test
	cd tests && ../$(BIN)/python -m support.clang_tidy

check-words: | $(VENV)/test
	$(BIN)/codespell

check-shell: | $(VENV)/test
	shellcheck $(SHELL_FILES)

check-units: | $(VENV)/test
	$(BIN)/pytest -q $(WORKERS) tests/unit

guests: $(VENV)/test ## kernels and a root file system for virtual machines, into ~/.cache
	cd tests && ../$(BIN)/python -m vm --fetch

conformance: $(VENV)/test ## the CNI contract, case by case: pycni, and for comparison ptp and bridge
	cd tests && ../$(BIN)/python -m conformance conformance/subjects/pycni.toml \
		conformance/subjects/ptp.toml conformance/subjects/bridge.toml

FUZZ_SECONDS ?= 120
fuzz: $(VENV)/fuzz ## random calls, frames and orders of verbs, for minutes; the decoders by coverage
	HYPOTHESIS_PROFILE=long $(BIN)/pytest tests/fuzz
	cd tests && ../$(BIN)/python -m fuzz.covered --seconds $(FUZZ_SECONDS)

soak: $(VENV)/test ## 1,000 attachments while plugins and agents are killed
	cd tests && ../$(BIN)/python -m fuzz.soak --count 1000

chaos: $(VENV)/test ## every kind of damage to three nodes under traffic, 15 minutes
	cd tests && ../$(BIN)/python -m chaos

KUBE_PROXY ?= nftables
# of another containerd than Debian's: CONTAINERD=2.4.2; another way between nodes: ENCAP=direct
CLUSTER = --kube-proxy $(KUBE_PROXY) $(if $(CONTAINERD),--containerd $(CONTAINERD)) \
	$(if $(ENCAP),--encap $(ENCAP))
cluster: $(VENV)/test ## a real Kubernetes of two nodes: built once, brought up, checked, taken down
	$(call install,nftables)
	cd tests && ../$(BIN)/python -m cluster run $(CLUSTER)

test-cluster: $(VENV)/test ## the same, and a minute of Kubernetes' own network tests
	$(call install,nftables)
	cd tests && ../$(BIN)/python -m cluster run $(CLUSTER) --focus cut

kills: $(VENV)/test ## components of such a cluster killed and stopped under traffic: PODS=500 for a storm
	$(call install,nftables)
	cd tests && ../$(BIN)/python -m cluster kills $(CLUSTER) $(if $(PODS),--pods $(PODS))

FOCUS ?= conformance
e2e: $(VENV)/test ## Kubernetes' own network tests: FOCUS=conformance, services, policy or all
	$(call install,nftables)
	cd tests && ../$(BIN)/python -m cluster e2e $(CLUSTER) --focus $(FOCUS)

test-kube: $(VENV)/test ## the store against etcd and the API server that `make cluster` built
	$(BIN)/pytest tests/kube/api.py tests/kube/pools.py

# of an image for both: ARCHITECTURES="amd64 arm64"
ARCHITECTURES ?=
CROSS_PACKAGES = gcc-aarch64-linux-gnu libc6-dev-arm64-cross
image: $(VENV)/test ## the container image, built without a daemon: dist/pycni-image.tar
	$(if $(filter arm64,$(ARCHITECTURES)),$(call install,$(CROSS_PACKAGES)))
	cd tests && ../$(BIN)/python -m image build --output ../dist/pycni-image.tar \
		$(ARCHITECTURES:%=--architecture=%)

test-image: $(VENV)/test ## an image for amd64 and arm64: what is in it, and what containerd makes of it
	$(call install,$(CROSS_PACKAGES))
	cd tests && ../$(BIN)/python -m image build --architecture=amd64 --architecture=arm64
	$(BIN)/pytest -n 1 tests/image/both.py

image-cached: $(VENV)/test
	cd tests && ../$(BIN)/python -m image build && ../$(BIN)/python -m image nft

manifests: $(VENV)/test ## the manifests of deploy/ that are made of others
	cd tests && ../$(BIN)/python -m image manifests

bench: $(VENV)/bench ## packets between nodes and on a node, beside other ways; into docs/
	cd tests && ../$(BIN)/python -m bench.dataplane --docs ../docs

bench-quick: $(VENV)/test ## the same in two minutes, printed only
	cd tests && ../$(BIN)/python -m bench.dataplane --quick

bench-lookups: $(VENV)/test ## the node of a pod address, by kind of map; into docs/
	cd tests && ../$(BIN)/python -m bench.lookups --docs ../docs

bench-cni: $(VENV)/test ## ADD and DEL against ptp and bridge, in interleaved rounds; into docs/
	cd tests && ../$(BIN)/python -m bench.cni --docs ../docs

test-cnitool: $(VENV)/test ## the reference runtime; needs Go
	GOBIN=$(CURDIR)/$(VENV)/go go install github.com/containernetworking/cni/cnitool@v1.3.0
	CNITOOL=$(CURDIR)/$(VENV)/go/cnitool $(BIN)/pytest tests/runtimes/cnitool.py

vagrant-test: ## the two machines of `cd vagrant && vagrant up`, when they are up
	cd vagrant && $(PYTHON) -m check

vagrant-smoke: wheels ## a real `vagrant up` and its test, with no virtualisation and no box
	$(call install,debootstrap e2fsprogs)
	cd vagrant && $(PYTHON) -m smoke up

wheels: $(VENV)/test ## pycni and all that it needs on Debian 12, to install with no network
	rm -rf dist/wheels
	$(BIN)/pip wheel -q --no-deps -w dist/wheels .
	$(BIN)/pip download -q -d dist/wheels --python-version 3.11 --only-binary=:all: \
		--platform manylinux2014_x86_64 --platform manylinux_2_28_x86_64 \
		dist/wheels/pycni-*.whl "grpcio>=1.60,<2" "protobuf>=5.29,<7"

test-kernels: $(VENV)/test ## distribution kernels, two machines each; KERNEL=6.1 for one of them
	$(call install,tshark)
	cd tests && ../$(BIN)/python -m vm $(if $(KERNEL),--kernel $(KERNEL))

wheel: $(VENV)/lab ## the installable package, with C sources and compiled programs: dist/pycni-*.whl
	$(BIN)/pip wheel -q --no-deps -w dist .

clean: ## what the targets made
	rm -rf $(VENV) dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
