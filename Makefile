# make run: everything, until Ctrl-C.   make test: the tests.   make install: the environment alone.   make lint, make bench
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: run test install browser lint bench

run: install
	@exec $(BIN)/python -m pipelines serve

test: install browser
	$(BIN)/python -m pytest -n 2 --dist loadfile

install: $(STAMP)

$(STAMP): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make run PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/python -m uv pip install --quiet --compile-bytecode --python $(BIN)/python -r requirements.txt
	$(BIN)/python -m uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

browser: install
	@$(BIN)/python -m tests.browser

lint: install
	$(BIN)/python -m ruff check .

bench: install
	$(BIN)/python benchmarks/quality.py
	$(BIN)/python benchmarks/anomaly.py
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/rbm_speed.py
	$(BIN)/python benchmarks/digits.py
	$(BIN)/python benchmarks/annealing.py
	$(BIN)/python benchmarks/dashboard.py
