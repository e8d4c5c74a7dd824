# Two commands matter: `make demo` and `make test`. Both set up a virtual environment first.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: help setup demo test lint check bench docs clean
help: ## show the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

# MosaicML's reader of MDS, for the tests: with its dependencies it would hold numpy and transformers back.
# torchvision is named beside torch so that pip resolves a pair that fits; open_clip needs both.
$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=24"
	$(BIN)/python -m pip install --quiet torch torchvision
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	$(BIN)/python -m pip install --quiet --no-deps mosaicml-streaming
	@touch $@

setup: $(STAMP) ## make the virtual environment

demo: $(STAMP) ## run the main job on real images, offline; ends by naming manifest and report
	$(BIN)/curate demo --out curate-demo

# Two processes of one thread each; a file's tests share their fixtures, so they stay together.
test: $(STAMP) ## all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile

lint: $(STAMP) ## format, lint, types, imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

check: lint test ## everything that must pass before a commit

bench: $(STAMP) ## speed as ratios to named baselines, then which selector is best (hours; see benchmarks/README.md)
	$(BIN)/python -m benchmarks.run
	$(BIN)/python -m benchmarks.quality

docs: $(STAMP) ## regenerate the generated documents
	$(BIN)/python -m curate.recipe_reference > docs/recipe.md
	$(BIN)/python -m curate.scores.registry > docs/scores.md
	$(BIN)/python -m curate_selectors.registry > docs/methods.md

clean: ## remove what was built
	rm -rf $(VENV) curate-demo dist build .mypy_cache .ruff_cache .pytest_cache
