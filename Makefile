# Needs Python 3.11 or later and make; every target sets itself up. Nothing but package installs touches a network.

SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PEERS := .venv-peers
SMOLAGENTS := 1.26.0
LLM_SANDBOX := 0.3.46
PEERS_READY := $(PEERS)/.ready-$(SMOLAGENTS)-$(LLM_SANDBOX)
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input install --quiet --constraint constraints.txt

# pyright runs on the node that its extra installs from PyPI, whatever else is on the machine.
export PYRIGHT_PYTHON_GLOBAL_NODE := off
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
# Where the environment of `make vllm-env` is, for tests and for --model vllm:NAME.
export RESEARCHER_VLLM_PYTHON ?= $(if $(wildcard .venv-vllm/bin/python),$(CURDIR)/.venv-vllm/bin/python)

.DEFAULT_GOAL := help
.PHONY: help demo demo-train test e2e check bench bench-documents bench-sandbox bench-train vllm-env clean

help:
	@echo "make demo      16 threads and more answer a question from documents, on the embedded model"
	@echo "make test      the suite without the end-to-end tests"
	@echo "make e2e       the end-to-end tests; what a part is missing for is skipped with the reason"
	@echo "make check     ruff, mypy, pyright, import-linter"
	@echo "make demo-train  reinforcement learning that can be watched: three seeds and a control, minutes on two cores"
	@echo "make bench     the benchmarks of the README"
	@echo "make bench-documents  what an index of 10,000 documents costs (ARGS=500: of 500)"
	@echo "make bench-sandbox    what a script costs in each sandbox, beside docker run and other projects (ARGS='--rounds 5')"
	@echo "make bench-train      what a training step costs, beside TRL's GRPOTrainer (ARGS='--rounds 3 --groups 16')"
	@echo "make vllm-env  a vLLM for the CPU in .venv-vllm (3 GB), for make e2e and --model vllm:NAME"
	@echo "make clean     removes what the targets made"

demo: $(VENV)/.base
	$(BIN)/researcher demo

demo-train: $(VENV)/.train
	$(BIN)/python -m benchmarks.climb $(ARGS)

test: $(VENV)/.dev
	$(BIN)/python -m pytest -m "not e2e" $(ARGS)

e2e: $(VENV)/.dev
	$(BIN)/python -m pytest -m e2e $(ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks

bench-documents: $(VENV)/.dev
	$(BIN)/python -m benchmarks.documents $(ARGS)

bench-sandbox: $(VENV)/.dev $(PEERS_READY)
	$(BIN)/researcher sandbox build
	$(BIN)/python -m benchmarks.sandbox $(ARGS)

bench-train: $(VENV)/.dev
	$(BIN)/python -m benchmarks.train $(ARGS)

vllm-env:
	PYTHON=$(PYTHON) .ci/vllm-env.sh .venv-vllm

clean:
	rm -rf .venv .venv-vllm .venv-peers .demo .climb .bench .e2e .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; name one: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.base: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[local]'
	@touch $@

# torch first and alone: with a version, pip takes the build for the CPU where there is one.
$(VENV)/.train: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) torch
	$(PIP) --editable '.[local,train]'
	@touch $(VENV)/.base $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) torch
	$(PIP) --editable '.[local,docker,web,mcp,tantivy,train,evals,oracle,dev]'
	@touch $(VENV)/.base $(VENV)/.train $@

# What our sandbox is measured beside, never imported by us. The gateway is for the Python of the sandbox's image.
$(PEERS_READY):
	rm -rf $(PEERS)
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip --disable-pip-version-check --no-input install --quiet \
	  'smolagents[docker]==$(SMOLAGENTS)' 'llm-sandbox[docker]==$(LLM_SANDBOX)'
	$(PEERS)/bin/python -m pip --disable-pip-version-check --no-input install --quiet --target $(PEERS)/gateway \
	  --python-version 3.11 --implementation cp --only-binary=:all: jupyter_kernel_gateway==3.0.1 ipykernel==7.4.0
	@touch $@
