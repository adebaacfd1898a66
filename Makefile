# make demo   an experiment end to end, then its report
# make test   linters, types, import contracts, tests
# make ui     Dagster's and MLflow's pages on this machine
# Set-up happens by itself, once, and again when pyproject.toml or constraints.txt change.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
KEY ?= ladder

.PHONY: setup demo test ui clean

setup: $(STAMP)

# CPU torch where there is no GPU: a fraction of the size. E2H_TORCH_INDEX names an index that has it,
# where the configured one does not.
$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { echo "no venv: apt-get install python3-venv"; exit 1; }
	@if ! command -v nvidia-smi >/dev/null && ! $(BIN)/python -c "import torch" 2>/dev/null; then \
		$(BIN)/python -m pip install -q $(if $(E2H_TORCH_INDEX),--index-url $(E2H_TORCH_INDEX)) \
			'torch==2.13.0+cpu' -c constraints.txt \
		|| echo "no CPU build of torch in the configured indexes (E2H_TORCH_INDEX can name one): taking the full one"; \
	fi
	$(BIN)/python -m pip install -q -e '.[dev]' -c constraints.txt
	@touch $@

demo: $(STAMP)
	$(BIN)/e2h run $(KEY)
	$(BIN)/e2h report $(KEY)

test: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

ui: $(STAMP)
	@exec $(BIN)/e2h ui

# Results in .e2h are left alone: delete that folder by hand.
clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .import_linter_cache .pytest_cache build dist
	find . -name __pycache__ -type d -not -path './.e2h/*' -exec rm -rf {} +
