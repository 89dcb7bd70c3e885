# What one does with a checkout: run it, test it, check it, measure it. `make help` lists the targets.

PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=

BIN := $(VENV)/bin
# What is being done is said on stderr, so that stdout holds only what the program itself prints.
say := printf >&2 '%s\n'

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run test deep mutants check format bench clean python

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 10
	@echo
	@echo 'ARGS="..." is handed on to what a target runs; PYTHON=... chooses the interpreter (3.11 or newer).'

run: $(VENV)/.server ## start a demo cluster on this machine
	@$(say) 'running: lessor demo'
	@$(BIN)/lessor demo $(ARGS)

test: $(VENV)/.dev ## run the tests
	@$(say) 'running the tests'
	@$(BIN)/python -m pytest -n 4 --dist worksteal $(ARGS)

deep: $(VENV)/.dev ## run the tests that take long: random histories, damaged files, kills at every line, containers
	@$(say) 'running the deep tests'
	@$(BIN)/python -m pytest -n 4 --dist worksteal -m "deep and not mutants" $(ARGS)

mutants: $(VENV)/.dev ## put known bugs in, one by one, and see each caught
	@$(say) 'running the mutants'
	@$(BIN)/python -m pytest -n 4 --dist worksteal -m mutants $(ARGS)

check: $(VENV)/.dev ## check format, style and types
	@$(say) 'checking format, style and types'
	@found=$$($(BIN)/ruff format --check --output-format concise .) || \
	  { $(say) "$$found" '`make format` mends this'; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary

format: $(VENV)/.dev ## format the sources
	@$(say) 'formatting the sources'
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --quiet --fix .

bench: $(VENV)/.server ## measure
	@$(say) 'running: lessor bench'
	@$(BIN)/lessor bench $(ARGS)

# The environment goes only if it is one: VENV may have been set to anything.
clean: ## remove the environment, caches and builds
	@$(say) 'removing the environment, caches and builds'
	@if [ -f $(VENV)/pyvenv.cfg ]; then rm -rf $(VENV); fi
	@rm -rf build dist src/*.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

# An installation is repeated when pyproject.toml has changed since; the development one holds the server too.
$(VENV)/.server: pyproject.toml $(VENV)/pyvenv.cfg | python
	@if [ $(VENV)/.dev -nt pyproject.toml ]; then touch $@; else $(say) 'installing lessor[server] into $(VENV)' && \
	  $(BIN)/python -m pip install -qq -e '.[server]' && touch $@; fi

$(VENV)/.dev: pyproject.toml $(VENV)/pyvenv.cfg | python
	@$(say) 'installing lessor[dev] into $(VENV)'
	@$(BIN)/python -m pip install -qq -e '.[dev]'
	@touch $@ $(VENV)/.server

# Debian keeps ensurepip in a package of its own; without it the interpreter's own pip brings pip into the environment.
$(VENV)/pyvenv.cfg: | python
	@$(say) 'creating the environment $(VENV)'
	@if $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then $(PYTHON) -m venv $(VENV); \
	else $(PYTHON) -m venv --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install -qq pip; fi \
	|| { rm -rf $(VENV); exit 1; }
	@touch $@

# Refuses an interpreter that is too old, and one that is not the one that the environment was made with.
python:
	@command -v $(PYTHON) >/dev/null || { $(say) '$(PYTHON) was not found; choose the interpreter with PYTHON=...'; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { $(say) "lessor needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) -V 2>/dev/null || echo none); choose another with PYTHON=..."; exit 1; }
ifneq ($(origin PYTHON),file)
	@[ ! -x $(BIN)/python ] || [ "$$($(BIN)/python -V)" = "$$($(PYTHON) -V)" ] || \
	  { $(say) "$(VENV) was made with $$($(BIN)/python -V), and $(PYTHON) is $$($(PYTHON) -V); \`make clean\` first"; exit 1; }
endif
