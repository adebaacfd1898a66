# make demo       an experiment end to end, then its report
# make check      linters, types, import contracts, tests without the slow ones: for every change
# make test       all of that, with every test
# make ui         Dagster's and MLflow's pages on this machine
# make generated  write docs/recipes.md, docs/extending.md and the snapshot of the asset graph again
# Set-up happens by itself, once, and again when pyproject.toml or constraints.txt change.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
KEY ?= ladder
# uv installs in parallel and says how far it is. It looks where pip has been told to look.
INSTALL := UV_FIND_LINKS="$(PIP_FIND_LINKS)" $(BIN)/uv pip install --system-certs --python $(BIN)/python -c constraints.txt
# One worker a core. Files with the longest tests begin first (tests/conftest.py), so that no core waits for the last.
# Compiled modules are kept, even where the environment says otherwise: tests start hundreds of processes.
PYTEST := env -u PYTHONDONTWRITEBYTECODE OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: setup demo check lint test tests ui generated clean

setup: $(STAMP)

# .env tells `dagster dev` and `dg dev`, which know nothing of E2H_HOME, to use the same home as we do.
# CPU torch where there is no GPU: a fraction of the size. E2H_TORCH_INDEX names an index that has it,
# where the configured one does not.
$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "no venv: apt-get install python3-venv"; exit 1; }
	@echo "set-up, 1 of 3: uv"
	@$(BIN)/python -m pip install -q -c constraints.txt uv
	@echo "set-up, 2 of 3: torch"
	@if ! command -v nvidia-smi >/dev/null && ! $(BIN)/python -c "import torch" 2>/dev/null; then \
		$(INSTALL) $(if $(E2H_TORCH_INDEX),--index-url $(E2H_TORCH_INDEX)) 'torch==2.13.0+cpu' \
		|| echo "no CPU build of torch in the configured indexes (E2H_TORCH_INDEX can name one): taking the full one"; \
	fi
	@echo "set-up, 3 of 3: everything else"
	@$(INSTALL) --compile-bytecode -e '.[dev]'
	@mkdir -p .e2h/dagster && { test -e .e2h/dagster/dagster.yaml || ln -sf ../../dagster.yaml .e2h/dagster/dagster.yaml; }
	@test -e .env || printf 'E2H_HOME=$${E2H_HOME:-%s}\nDAGSTER_HOME=$${E2H_HOME}/dagster\n' "$(CURDIR)/.e2h" > .env
	@touch $@

demo: $(STAMP)
	$(BIN)/e2h run $(KEY)
	$(BIN)/e2h report $(KEY)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint
	$(PYTEST) -m "not slow"

# mypy reads everything anew in a fresh clone and uses one core, so the tests begin beside it.
test: $(STAMP)
	@$(MAKE) --no-print-directory -j 2 lint tests

tests: $(STAMP)
	$(PYTEST)

ui: $(STAMP)
	@exec $(BIN)/e2h ui

generated: $(STAMP)
	$(BIN)/python scripts/write_generated.py

# Results in .e2h are left alone: delete that folder by hand.
clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .import_linter_cache .pytest_cache build dist
	find . -name __pycache__ -type d -not -path './.e2h/*' -exec rm -rf {} +
