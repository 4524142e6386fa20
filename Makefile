# `make table1` regenerates the headline table, `make test` runs the tests; `repro list` shows every other target.
SHELL := /bin/bash
PYTHON ?= python3
PROFILE ?= paper
VENV := .venv
REPRO := $(VENV)/bin/repro
STAMP := $(VENV)/.installed
PAPERS := gmrf mrf sbm covae pretrained compare

.PHONY: help setup table1 overnight report docs push-weights test test-all lint bench faults list clean force
help: ## This list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14
	@echo "<paper>-table<N>, <paper>-fig<N>   any table or figure; papers: gmrf mrf sbm covae compare pretrained; see '$(REPRO) list'"
	@echo "variables: PROFILE=paper|overnight|quick|smoke, ARGS='--seeds 1 --dry-run ...'"

setup: $(STAMP) ## Make .venv from requirements.lock; again only when the lock or pyproject.toml changes
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 5) and "Python 3.11.5 or later is needed, $(PYTHON) is " + sys.version.split()[0] + "; make PYTHON=... takes another")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --disable-pip-version-check -q -r requirements.lock
	$(VENV)/bin/python -m pip install --disable-pip-version-check -q --no-deps --no-build-isolation -e .
	@touch $@

table1: $(STAMP) ## Table I of GMRF MCVAE: five models on the copula dataset
	$(REPRO) run gmrf-table1 --profile $(PROFILE) $(ARGS)

define ARTIFACTS
$(1)-%: $(STAMP) force
	$(REPRO) run $$@ --profile $(PROFILE) $(ARGS)
endef
$(foreach paper,$(PAPERS),$(eval $(call ARTIFACTS,$(paper))))
force:

overnight: $(STAMP) ## The runs of repro/artifacts/overnight.toml, in order, for some nights; continues, ARGS='--dry-run', '--workers 1'
	$(REPRO) overnight $(ARGS)

report: $(STAMP) ## Redraw every table and figure from the committed records
	$(REPRO) report

docs: $(STAMP) ## The documentation site from the committed records, to docs/_build/html
	$(VENV)/bin/python -m sphinx -W --keep-going -q -j auto -b html -d docs/_build/doctrees docs docs/_build/html $(ARGS)
	@echo "docs/_build/html/index.html"

list: $(STAMP) ## Every table and figure, with data, cost and state
	$(REPRO) list

push-weights: $(STAMP) ## Models with their cards to the Hub: HF_REPO=user/name; ARGS=--yes uploads, else a dry run
	@test -n "$(HF_REPO)" || { echo "push-weights: name the repository, HF_REPO=user/name" >&2; exit 2; }
	$(REPRO) weights push $(HF_REPO) $(ARGS)

test: $(STAMP) ## The tests but the slow ones, in under ten minutes
	$(VENV)/bin/python -m pytest -q -n auto -m "not slow" $(ARGS)

test-all: $(STAMP) ## All tests: SLURM, real kills, faulty servers, long chains too
	$(VENV)/bin/python -m pytest -q -n auto $(ARGS)

lint: $(STAMP) ## Style
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

bench: $(STAMP) ## Speed on this machine, in five minutes; ARGS=--long for the rest
	$(VENV)/bin/python -m tests.benchmarks $(ARGS)

faults: $(STAMP) ## Kills, full disks, damaged files, second machines: faults tried, survived, lost (needs root)
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m tests.benchmarks.faults $(ARGS)

clean: ## Remove run directories and caches, keep .venv, figures and results
	rm -rf runs docs/_build docs/generated .pytest_cache .ruff_cache
