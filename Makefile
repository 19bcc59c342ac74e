# Two commands: `make demo` and `make test`. Each sets up .venv first, once.

VENV := .venv
PYTHON ?= $(shell for p in python3 python3.12 python3.11 python3.13; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$p && break; done)
BIN := $(VENV)/bin

.PHONY: demo test lint format evidence clean

demo: $(VENV)/.installed
	$(BIN)/stillhouse demo

# A process a core, each of one thread: what tests train is too small for more.
test: $(VENV)/.developed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

# A cache would remember which imports were ours before a file came or went.
lint: $(VENV)/.developed
	$(BIN)/ruff check --no-cache .
	$(BIN)/ruff format --no-cache --check .
	$(BIN)/mypy

format: $(VENV)/.developed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# What docs/results holds, trained again: about three quarters of an hour on two cores.
METHODS := kd,ttm,ats,lskd,dkd,lskd:base=dkd,dist,dist:temperature=4,mse
EVIDENCE := digits/numbers train.epochs=20 engine.tensorboard=false
evidence: $(VENV)/.developed
	$(BIN)/stillhouse sweep $(EVIDENCE) --methods $(METHODS) --trials 10 --out runs/classification-sweep
	$(BIN)/stillhouse study runs/classification-sweep/chosen.yaml --seeds 5 --out runs/classification
	$(BIN)/python benchmarks/keep.py runs/classification-sweep runs/classification docs/results/classification

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
