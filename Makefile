# Two commands: `make demo` and `make test`. Each sets up .venv first, once.

VENV := .venv
PYTHON ?= $(shell for p in python3 python3.12 python3.11 python3.13; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$p && break; done)
BIN := $(VENV)/bin

.PHONY: demo test lint format evidence evidence-methods evidence-labels evidence-detectors \
	evidence-detection evidence-semantic evidence-instance evidence-unlabelled clean

demo: $(VENV)/.installed
	$(BIN)/stillhouse demo

# A process a core, each of one thread: what tests train is too small for more. tests/conftest.py says
# which tests stay together, and which begin first. Byte code is kept: rewriting all asserts takes seconds.
test: $(VENV)/.developed
	env -u PYTHONDONTWRITEBYTECODE OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

# A cache would remember which imports were ours before a file came or went.
lint: $(VENV)/.developed
	$(BIN)/ruff check --no-cache .
	$(BIN)/ruff format --no-cache --check .
	$(BIN)/mypy

format: $(VENV)/.developed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# What each of these trains is a file of benchmarks/studies. What a file cannot say is said here: the
# number of trials of a search, and where it searches.
STUDIES := benchmarks/studies

# What docs/results/classification holds, trained again: three quarters of an hour on two cores.
evidence: $(VENV)/.developed
	$(BIN)/stillhouse sweep $(STUDIES)/classification.yaml --trials 10 --out runs/classification-sweep
	$(BIN)/stillhouse study runs/classification-sweep/chosen.yaml --seeds 5 --out runs/classification
	$(BIN)/python benchmarks/keep.py docs/results/classification runs/classification-sweep runs/classification

# What docs/results/methods holds: every method at its paper's options, in about an hour and a half.
evidence-methods: $(VENV)/.developed
	$(BIN)/stillhouse study $(STUDIES)/methods.yaml --out runs/methods
	$(BIN)/python benchmarks/consistency.py runs/methods --against dist:temperature=4 --arms none kd lskd 'dist*'
	$(BIN)/stillhouse study $(STUDIES)/methods_strength.yaml --out runs/strength
	$(BIN)/python benchmarks/steps.py
	$(BIN)/python benchmarks/keep.py docs/results/methods runs/methods
	$(BIN)/python benchmarks/keep.py docs/results/methods/strength runs/strength

# What docs/results/multilabel holds: several labels an image, in about an hour and a half. Weights and
# temperatures have three decades each, those of CD and ID where the first step weighs a tenth of the labels.
SPACE := --space method.weight=0.03..30 --space method.temperature=0.25..10 \
	--space method.beta=0.03..30 --space method.gamma=0.03..30 --space method.mld=0.03..30 \
	--space method.0.weight=0.003..3 --space method.1.weight=0.03..30 \
	--space method.cd=0.003..3 --space method.id=0.03..30
evidence-labels: $(VENV)/.developed
	$(BIN)/stillhouse sweep $(STUDIES)/labels.yaml $(SPACE) --trials 4 --out runs/labels-sweep
	$(BIN)/stillhouse study runs/labels-sweep/chosen.yaml --seeds 5 --out runs/labels
	$(BIN)/stillhouse study $(STUDIES)/labels_temperatures.yaml --out runs/labels-temperatures
	$(BIN)/stillhouse study $(STUDIES)/labels_strength.yaml --out runs/labels-strength
	$(BIN)/python benchmarks/temperatures.py runs/labels-temperatures
	$(BIN)/python benchmarks/keep.py docs/results/multilabel runs/labels-sweep runs/labels
	$(BIN)/python benchmarks/keep.py docs/results/multilabel/temperatures runs/labels-temperatures
	$(BIN)/python benchmarks/keep.py docs/results/multilabel/strength runs/labels-strength

# What docs/results/detectors holds, but for the blood cells, whose images are not ours: half an hour.
evidence-detectors: $(VENV)/.developed
	$(BIN)/python benchmarks/detector_families.py
	$(BIN)/python benchmarks/detector_steps.py
	$(BIN)/python benchmarks/dense_losses.py

# What docs/results/detection holds, but for the blood cells: about four hours.
evidence-detection: $(VENV)/.developed
	$(BIN)/stillhouse study $(STUDIES)/detection.yaml --out runs/detection
	$(BIN)/python benchmarks/detection_steps.py
	$(BIN)/python benchmarks/keep.py docs/results/detection runs/detection
	$(BIN)/stillhouse sweep benchmarks/searches/detection_features.yaml --trials 1 --no-prune --out runs/features-sweep
	$(BIN)/stillhouse study $(STUDIES)/detection_features.yaml --out runs/detection-features
	$(BIN)/stillhouse study $(STUDIES)/detection_two_stage.yaml --out runs/detection-two-stage
	$(BIN)/python benchmarks/keep.py docs/results/detection/features runs/detection-features
	$(BIN)/python benchmarks/keep.py docs/results/detection/two_stage runs/detection-two-stage
	$(BIN)/python benchmarks/detection_comparison.py

# What docs/results/semantic holds, but for the driving scenes, whose images are not ours: two hours.
evidence-semantic: $(VENV)/.developed
	$(BIN)/stillhouse study benchmarks/searches/semantic.yaml --out runs/semantic-search
	$(BIN)/stillhouse study $(STUDIES)/semantic.yaml --out runs/semantic
	$(BIN)/python benchmarks/keep.py docs/results/semantic/search runs/semantic-search
	$(BIN)/python benchmarks/keep.py docs/results/semantic runs/semantic

# What docs/results/instance holds: three hours.
evidence-instance: $(VENV)/.developed
	$(BIN)/stillhouse study $(STUDIES)/instance.yaml --out runs/instance
	$(BIN)/stillhouse study $(STUDIES)/instance_features.yaml --out runs/instance-features
	$(BIN)/python benchmarks/keep.py docs/results/instance runs/instance
	$(BIN)/python benchmarks/keep.py docs/results/instance/features runs/instance-features

# What images without labels add: a teacher of 6,000 labelled images, then 30 trainings of students.
evidence-unlabelled: $(VENV)/.developed
	$(BIN)/stillhouse run benchmarks/unlabelled_teacher.yaml --out runs/unlabelled-teacher
	$(BIN)/stillhouse study benchmarks/unlabelled.yaml --out runs/unlabelled
	$(BIN)/python benchmarks/unlabelled.py runs/unlabelled
	$(BIN)/python benchmarks/keep.py docs/results/unlabelled runs/unlabelled

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
