# make demo   simulate, enhance and report a bundled scan
# make test   every check: format, lint, types, tests, and the code of README and docs
#
# Both make .venv and install into it, again only when pyproject.toml or constraints.txt changed.
# Another Python (3.11 to 3.13): make test PYTHON=/path/to/python3.12

VENV := .venv
BIN := $(VENV)/bin
OUT := demo-out
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c '$(SUPPORTED)' 2>/dev/null && { echo $$p; break; }; done)

.PHONY: demo test lint clean

demo: $(VENV)/.installed
	$(BIN)/dynamicdps demo --out $(OUT)
	@echo "The report: $(abspath $(OUT))/report.html"

test: lint
	$(BIN)/python -m pytest -m "not slow"

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) $(OUT) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage
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
