# Two commands: `make demo` and `make test`. Each sets up .venv first, once.

VENV := .venv
PYTHON ?= $(shell for p in python3 python3.12 python3.11 python3.13; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$p && break; done)
BIN := $(VENV)/bin

.PHONY: demo test lint format evidence evidence-methods clean

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

# What docs/results/classification holds, trained again: three quarters of an hour on two cores.
METHODS := kd,ttm,ats,lskd,dkd,lskd:base=dkd,dist,dist:temperature=4,mse
SEARCHED := digits/numbers train.epochs=20 engine.tensorboard=false
evidence: $(VENV)/.developed
	$(BIN)/stillhouse sweep $(SEARCHED) --methods $(METHODS) --trials 10 --out runs/classification-sweep
	$(BIN)/stillhouse study runs/classification-sweep/chosen.yaml --seeds 5 --out runs/classification
	$(BIN)/python benchmarks/keep.py docs/results/classification runs/classification-sweep runs/classification

# What docs/results/methods holds: every method at its paper's options, in about an hour and a half.
DIST := dist:temperature=4
RELATED := $(DIST)+channel_relation+spatial_relation
MOVED := acclimation:temperature=4
LOGITS := kd,lskd,ttm,ats,dkd,lskd:base=dkd,ctkd,ctkd:base=lskd,mlkd,mlkd:base=lskd,$(DIST),mse
FEATURES := fitnet,at,ofd,ab,ft,vid,reviewkd,simkd,catkd,srrl,mgd,cwd,mimic,pkd:adapter=pointwise
RELATIONS := channel_relation,spatial_relation,rkd,pkt,cc,cc:variant=reference,crd:negatives=512,sp,nst,fsp
EVERY := $(LOGITS),$(FEATURES),$(RELATIONS),$(RELATED),$(DIST)+$(MOVED),$(RELATED)+$(MOVED)
UNSEARCHED := digits/numbers train.epochs=10 engine.tensorboard=false engine.evaluate_every=5 teacher.remember=false
evidence-methods: $(VENV)/.developed
	$(BIN)/stillhouse study $(UNSEARCHED) --methods "$(EVERY)" --seeds 5 --out runs/methods
	$(BIN)/python benchmarks/consistency.py runs/methods --against $(DIST) \
		--arms none kd lskd $(DIST) $(RELATED) $(DIST)+$(MOVED) $(RELATED)+$(MOVED)
	$(BIN)/stillhouse study $(UNSEARCHED) --methods kd,$(DIST) --teachers stillhouse/medium,stillhouse/large --seeds 5 --out runs/strength
	$(BIN)/python benchmarks/steps.py
	$(BIN)/python benchmarks/keep.py docs/results/methods runs/methods
	$(BIN)/python benchmarks/keep.py docs/results/methods/strength runs/strength

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
