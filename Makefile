# pycni: `make help` lists the targets. Everything runs as root, from a clean clone, on Debian 12 or
# Ubuntu 24.04; each target installs what it needs.

PYTHON ?= /usr/bin/python3
VENV   ?= .venv
BIN     = $(VENV)/bin
PACKAGES = clang libbpf-dev linux-libc-dev libbpfcc libnftables1 python3-venv

.DEFAULT_GOAL := help
.PHONY: help packages lab test lint wheel clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

packages: ## Debian packages, if any is missing
	@dpkg-query -W -f='$${db:Status-Status}\n' $(PACKAGES) 2>/dev/null | grep -cx installed | \
		grep -qx $(words $(PACKAGES)) || { apt-get update -q && \
		DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends $(PACKAGES); }

$(VENV)/lab: pyproject.toml | packages
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -e .
	@touch $@

$(VENV)/test: $(VENV)/lab
	$(BIN)/pip install -q -e .[test]
	@touch $@

lab: $(VENV)/lab ## two nodes, three pods each: bring up, prove, take down
	$(BIN)/pycni lab run --nodes 2 --pods 3

test: $(VENV)/test lint ## everything that CI runs
	$(BIN)/pytest

lint: $(VENV)/test ## style, types, import layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

wheel: $(VENV)/test ## the installable package, C sources inside
	$(BIN)/pip wheel -q --no-deps -w dist .

clean: ## what the targets made
	rm -rf $(VENV) dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
