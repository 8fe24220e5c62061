# make demo       simulate, enhance and report a bundled scan
# make test       every check: format, lint, types, the site, tests, and the code of README and docs
# make docs       the site of docs/, into build/docs; runs the examples
# make dist       wheel and sdist, checked, into dist/
# make coverage   lines and branches that the tests reach; one package: make coverage PACKAGE=operators
# make mutation   share of faults that the tests notice; one file: make mutation MODULE=operators/presets.py;
#                 estimated from random faults: make mutation SAMPLE=180
#
# All make .venv and install into it, again only when pyproject.toml or constraints.txt changed.
# Another Python (3.11 to 3.13): make test PYTHON=/path/to/python3.12

VENV := .venv
BIN := $(VENV)/bin
OUT := demo-out
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c '$(SUPPORTED)' 2>/dev/null && { echo $$p; break; }; done)

.PHONY: demo test lint docs dist coverage mutation clean

demo: $(VENV)/.installed
	$(BIN)/dynamicdps demo --out $(OUT)
	@echo "The report: $(abspath $(OUT))/report.html"

test: lint docs
	$(BIN)/python -m pytest -m "not slow"

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(VENV)/.installed-dev
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going -d build/doctrees docs build/docs
	@echo "The site: $(abspath build/docs)/index.html"

dist: $(VENV)/.installed-dev
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(BIN)/twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl
	DYNAMICDPS_DIST=$(abspath dist) $(BIN)/python -m pytest -m "slow or not slow" tests/test_distribution.py

coverage: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m "not slow" --cov=$(if $(PACKAGE),dynamicdps.$(PACKAGE),dynamicdps) --cov-branch --cov-report=term:skip-covered \
		--cov-report=html:build/coverage $(if $(PACKAGE),--cov-fail-under=0 tests/$(PACKAGE))

mutation: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/mutation.py $(if $(SAMPLE),--sample $(SAMPLE)) $(MODULE)

clean:
	rm -rf $(VENV) $(OUT) build dist docs/gallery .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $(VENV)/.installed $@

$(BIN)/pip:
	@test -n "$(PYTHON)" && "$(PYTHON)" -c '$(SUPPORTED)' || { \
		echo "DynamicDPS needs Python 3.11, 3.12 or 3.13; found '$(PYTHON)'; install one and name it: make PYTHON=/path/to/python3.12" >&2; \
		exit 1; }
	"$(PYTHON)" -m venv $(VENV)
