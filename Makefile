# Two commands: `make demo` and `make test`. Each sets up .venv first, once.

VENV := .venv
PYTHON ?= $(shell for p in python3 python3.12 python3.11 python3.13; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$p && break; done)
BIN := $(VENV)/bin

.PHONY: demo test lint format types clean

demo: $(VENV)/.installed
	$(BIN)/stillhouse demo

test: $(VENV)/.developed
	$(BIN)/python -m pytest

lint: $(VENV)/.developed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.developed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The versions in constraints.txt are those that were tested; uv is used where it is installed.
define install
	@test -n "$(PYTHON)" || { echo "Stillhouse needs Python 3.11 or newer on the PATH." >&2; exit 2; }
	@if command -v uv >/dev/null 2>&1; then \
		test -x $(BIN)/python || uv venv --python "$(PYTHON)" $(VENV); \
		uv pip install --python $(BIN)/python -c constraints.txt -e '$(1)'; \
	else \
		test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV); \
		$(BIN)/python -m pip install --quiet -c constraints.txt -e '$(1)'; \
	fi
	@touch $@
endef

$(VENV)/.installed: pyproject.toml constraints.txt
	$(call install,.)

$(VENV)/.developed: pyproject.toml constraints.txt
	$(call install,.[dev])
	@touch $(VENV)/.installed

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
