# Two commands are all a newcomer needs: `make demo` and `make test`. Each builds .venv from nothing.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

BASE_PYTHON ?= python3
PYTHON := .venv/bin/python
SEEDS ?= 3
METHOD ?= stica
PYTEST_ARGS ?=

.PHONY: help install demo test test-slow check format bench ablation compare docs-numbers clean

help: ## list the targets
	@grep -E '^[a-z<>-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

.venv/.installed: pyproject.toml constraints.txt
	@started=$$SECONDS; \
	echo "Installing into .venv (torch, transformers and the rest; about two minutes) ..."; \
	$(BASE_PYTHON) -m venv .venv; \
	$(PYTHON) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"; \
	$(PYTHON) -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps open_clip_torch; \
	touch $@; \
	echo "Installed in $$((SECONDS - started)) s."

install: .venv/.installed ## make .venv and install everything

demo: install ## about four minutes: generate clips, pre-train, evaluate, pack, reload, report
	$(PYTHON) -m videossl_hf.cli demo --output outputs/demo

test: install ## the whole suite but for the tests marked slow, with coverage
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n 2 -m "not slow" --cov --cov-report=term $(PYTEST_ARGS)

test-slow: install ## the long tests: more seeds, more corruptions, more resumes
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n 2 -m slow $(PYTEST_ARGS)

check: install ## format, lint, types, import rules
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(PYTHON) -m mypy
	$(PYTHON) -m pytest -q tests/test_import_rules.py

format: install ## let ruff format and mend what it can
	$(PYTHON) -m ruff format .
	$(PYTHON) -m ruff check --fix .

bench: install ## speed, ours beside a rival in one run (see benchmarks/)
	@for script in decode crops train_step videomoco_step vimpac_step codes_throughput tvts_step ila_step transcripts extraction attentive_probe; do echo "== $$script"; $(PYTHON) benchmarks/$$script.py; done

ablation: install ## variants of a method at equal steps (about an hour on two cores): make ablation METHOD=stica
	$(PYTHON) benchmarks/ablation.py $(METHOD) --seeds $(SEEDS) --jobs 2

compare: install ## all methods and peers on the same clips (hours; the time is printed first, broken-off runs go on)
	$(PYTHON) benchmarks/compare.py --seeds $(SEEDS) --jobs 2

docs-numbers: install ## write the figures of results/ into the documents
	$(PYTHON) benchmarks/docs_numbers.py

smoke-%: install ## train, resume, evaluate, save, reload one method: make smoke-stica SEEDS=3
	$(PYTHON) training/smoke.py $* --seeds $(SEEDS)

clean: ## remove the environment, the caches and the outputs
	rm -rf .venv outputs .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*
