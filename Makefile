# make relay      set up .venv and run the relay on its embedded default
# make test       set up .venv and run the whole suite
# make test-unit  what needs no privilege, in under a minute

PYTHON ?= python3
VENV   := .venv
READY  := $(VENV)/.ready

.PHONY: relay test test-unit lint clean

relay: $(READY)
	@exec $(VENV)/bin/mcastsocks relay

test: $(READY)
	$(VENV)/bin/python -m pytest

test-unit: $(READY)
	$(VENV)/bin/python -m pytest --ignore tests/netns --ignore tests/interop --ignore tests/wireshark --ignore tests/benchmarks

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

$(READY): pyproject.toml
	@command -v $(PYTHON) >/dev/null || { \
	  echo "mcastsocks needs Python 3.11 or newer; '$(PYTHON)' was not found. On Debian: apt install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "mcastsocks needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Name another one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "Python's venv module is missing. On Debian: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV)
