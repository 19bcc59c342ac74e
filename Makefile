# Two commands: `make demo` and `make test`. Each sets up .venv first, once.

VENV := .venv
PYTHON ?= $(shell for p in python3 python3.12 python3.11 python3.13; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$p && break; done)
BIN := $(VENV)/bin

.PHONY: demo test lint format evidence evidence-methods evidence-labels clean

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

# What docs/results/multilabel holds: several labels an image, in about an hour and a half. Weights and
# temperatures have three decades each, those of CD and ID where the first step weighs a tenth of the labels.
LABELS := digits/labels engine.tensorboard=false
SEVERAL := kd:label_weight=1,mse,ps,mld,bcd:beta=1,tld,dist,tld_dist,cd+id,l2d,cd+id+tld
SPACE := method.weight=0.03..30 method.temperature=0.25..10 method.beta=0.03..30 method.gamma=0.03..30 \
	method.0.weight=0.003..3 method.1.weight=0.03..30 method.mld=0.03..30 method.cd=0.003..3 method.id=0.03..30
TEMPERED := kd:label_weight=1:weight=0.759,tld:weight=1
TAUGHT := tld:weight=1:temperature=0.5,tld_dist:temperature=1.87:beta=0.56:gamma=2.6
evidence-labels: $(VENV)/.developed
	$(BIN)/stillhouse sweep $(LABELS) --methods "$(SEVERAL)" $(foreach key,$(SPACE),--space $(key)) --trials 4 --out runs/labels-sweep
	$(BIN)/stillhouse study runs/labels-sweep/chosen.yaml --seeds 5 --out runs/labels
	$(BIN)/stillhouse study $(LABELS) engine.evaluate_every=5 --methods "$(TEMPERED)" --grid method.temperature=0.25,0.5,0.75,2,4 --seeds 3 --out runs/temperatures
	$(BIN)/stillhouse study $(LABELS) engine.evaluate_every=5 --methods "$(TAUGHT)" --teachers stillhouse/small,stillhouse/medium --seeds 3 --out runs/strength
	$(BIN)/python benchmarks/temperatures.py runs/temperatures
	$(BIN)/python benchmarks/keep.py docs/results/multilabel runs/labels-sweep runs/labels
	$(BIN)/python benchmarks/keep.py docs/results/multilabel/temperatures runs/temperatures
	$(BIN)/python benchmarks/keep.py docs/results/multilabel/strength runs/strength

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
