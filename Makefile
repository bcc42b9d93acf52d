# What a fresh machine needs: Python 3.11 to 3.13 and make. Everything else goes into .venv.
#
# pip's own choice of torch on Linux brings CUDA (2.5 GB). Without a GPU, give pip PyTorch's index of CPU builds:
#   make test PIP_OPTIONS="--extra-index-url ..."

PYTHON ?= python3
PIP_OPTIONS ?=
VENV := .venv
# What is built when birdinfer is installed, also in place: a change to it needs another installation.
BUILT := pyproject.toml hatch_build.py $(wildcard birdinfer/features/kernels/*.c birdinfer/features/kernels/*.h)
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest -n auto --dist worksteal
# Where this is set, each of the tests' many processes compiles the whole package again.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help demo test test-avx2 coverage lint docs bench clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.installed-cpu  ## Predict, score and detect three minutes of real sound (installs no torch)
	$(BIN)/birdinfer demo

test: $(VENV)/.installed-dev  ## Linters, types and all tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
# mypy is one process: it runs beside the tests.
	$(BIN)/mypy & types=$$!; $(PYTEST); tests=$$?; wait $$types && exit $$tests

# What a processor without AVX-512, VNNI and bf16 computes, on one that has them (Linux on x86, gcc, objdump).
NUMERIC_TESTS = tests/features tests/audio tests/postprocess tests/inference tests/evaluation tests/training/models

test-avx2: $(VENV)/.installed-dev  ## The numeric tests as a processor without AVX-512 computes them
	$(BIN)/python .ci/as_avx2.py $(PYTEST) $(NUMERIC_TESTS)

coverage: $(VENV)/.installed-dev  ## All tests with more examples and whole networks, and the lines that make test's reach
	TEST_PROFILE=ci $(PYTEST) --cov --cov-report=term:skip-covered --cov-fail-under=90

lint: $(VENV)/.installed-dev  ## Linters and types only
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

docs: $(VENV)/.installed-dev  ## Build the pages of docs/ into site/; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

bench: $(VENV)/.installed-dev  ## Speed, memory and accuracy side by side with a naive notebook
	$(BIN)/python -m pytest benchmarks/

clean:  ## Remove caches and build results; .venv stays
	rm -rf build dist site .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# The stamps tell make that nothing is to be installed again until one of these changes.
$(VENV)/.installed-cpu: $(BUILT) | $(BIN)/python
	@echo "installing birdinfer with ONNX Runtime into $(VENV) (once; about half a minute)"
	@$(BIN)/python -m pip install --quiet $(PIP_OPTIONS) --editable '.[cpu]'
	@touch $@

$(VENV)/.installed-dev: $(BUILT) | $(BIN)/python
	@echo "installing birdinfer with torch and all that the tests need into $(VENV) (once; some minutes)"
	@$(BIN)/python -m pip install --quiet $(PIP_OPTIONS) --editable '.[dev]'
# It declares torch and torchaudio, which would replace the torch that is there; only its ONNX file is used.
	@$(BIN)/python -m pip install --quiet $(PIP_OPTIONS) --no-deps 'silero-vad>=6.2.3'
	@touch $@ $(VENV)/.installed-cpu

# `make -B` or an older stamp must not rebuild the environment, hence an order-only prerequisite above.
$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not there: install Python 3.11 to 3.13, or name it: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { echo "birdinfer needs Python 3.11 to 3.13, $(PYTHON) is $$($(PYTHON) -V 2>&1): name another with make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
