# Needs Python 3.11 or later and make; everything else is installed into .venv.
PYTHON ?= python3
PY := .venv/bin/python
BIN := .venv/bin
# Further arguments for the command of a target: make test ARGS="-k bridge"
ARGS ?=
# The benchmarks that make bench runs, by their file names in benchmarks/
BENCH ?= engine latency

.DEFAULT_GOAL := help
.PHONY: help demo up test faults interop lint generate lock outdated sbom bench clean

help:
	@echo 'make demo      stream the sample recording through the whole stack and show what is stored'
	@echo 'make up        run the stack in the foreground, on port 8000 (DALSTON_PORT)'
	@echo 'make test      run the tests, on the same real components: eight minutes          ARGS="-k bridge"'
	@echo 'make faults    break every component that stores sessions, and compare bytes: about an hour'
	@echo 'make interop   run unmodified clients of others, which are installed into build/interop'
	@echo 'make lint      check style, types, layers and the contract'
	@echo 'make generate  generate stubs and descriptor set from proto/'
	@echo 'make lock      lock the dependencies of pyproject.toml, with hashes                ARGS=--upgrade'
	@echo 'make outdated  list the locked packages that have a newer version, and known vulnerabilities'
	@echo 'make sbom      write a bill of materials, build/sbom.cdx.json'
	@echo 'make bench     measure latency, word error rate, CPU and memory      BENCH=soak ARGS="--hours 1"'
	@echo 'make clean     remove .venv and caches; recorded sessions in .dalston stay'

demo: .venv/stack.stamp
	@exec $(PY) -m stack demo $(ARGS)

up: .venv/stack.stamp
	@exec $(PY) -m stack up $(ARGS)

test: .venv/dev.stamp
	@# Processes that keep the bytecode of tests for each other save half a minute, whatever an image sets.
	@PYTHONDONTWRITEBYTECODE= exec $(PY) -m pytest --numprocesses 4 --no-loadscope-reorder $(ARGS)

faults: .venv/dev.stamp
	@exec $(PY) -m pytest tests/faults tests/e2e/test_openapi.py --faults=all --hypothesis-profile=thorough $(ARGS)

interop: .venv/dev.stamp
	@exec $(PY) -m pytest tests/interop -s $(ARGS)

bench: .venv/dev.stamp
	@set -e; for name in $(BENCH); do $(PY) benchmarks/$$name.py $(ARGS); done

generate: .venv/dev.stamp
	$(PY) scripts/generate.py

lock: .venv/dev.stamp
	$(PY) scripts/relock.py $(ARGS)

outdated: .venv/dev.stamp
	@$(PY) scripts/relock.py --outdated
	@$(PY) scripts/audit.py || test $$? -eq 2 # without a network nothing is known

sbom: .venv/dev.stamp
	@$(PY) scripts/sbom.py build/sbom.cdx.json

lint: .venv/dev.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PY) scripts/generate.py --check
	$(BIN)/buf lint
	$(PY) scripts/check_words.py
	$(PY) scripts/breaking.py

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build third_party
	find . -name __pycache__ -prune -exec rm -rf {} +
	rm -rf *.egg-info sdk/*.egg-info

# Installs again only if the requirements have changed.
.venv/stack.stamp: pyproject.toml sdk/pyproject.toml lock/stack.txt
	@command -v $(PYTHON) >/dev/null || { echo 'error: Python 3.11 or later is needed, and there is no $(PYTHON)' >&2; exit 1; }
	@$(PYTHON) scripts/install.py stack
	@touch $@

.venv/dev.stamp: pyproject.toml sdk/pyproject.toml lock/dev.txt
	@command -v $(PYTHON) >/dev/null || { echo 'error: Python 3.11 or later is needed, and there is no $(PYTHON)' >&2; exit 1; }
	@$(PYTHON) scripts/install.py dev
	@touch $@ .venv/stack.stamp
