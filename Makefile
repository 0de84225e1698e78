# robustdml: every target makes the environment itself (.venv, from constraints.txt), once.
# Another Python: PYTHON=python3.12 make test

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# So many workers run tests, file by file and those with slow tests first; each takes 1 GB of memory.
WORKERS ?= 2
SIDE_BY_SIDE := -n $(WORKERS) --dist loadfile --no-loadscope-reorder

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help demo test tests quick malformed faults fuzz audit browser check lint types bench docs clean same-python

help: ## say what there is
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 14

demo: $(INSTALLED) ## train, attack and report on built-in images: demo/report.html
	$(BIN)/robustdml demo

test: lint browser ## lint, types and all tests: what CI runs
	@$(MAKE) --no-print-directory --jobs=2 types tests

# Beside the types, which take one core for a minute.
tests: $(INSTALLED)
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)

quick: $(INSTALLED) ## the tests that are not slow, for while you work: some 80 seconds
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "not slow"

malformed: $(INSTALLED) ## 1,200 malformed command lines and files: COUNT=1200 SEED=0
	PYTHONPATH=tests/support:tests/malformed $(BIN)/python -m malformed_run --count $(or $(COUNT),1200) --seed $(or $(SEED),0)

fuzz: $(INSTALLED) ## what a fuzzer makes of results, records, checkpoints, tables, recipes and texts: FOR=3600 SEED=0
	PYTHONPATH=tests/support:tests/malformed:tests/fuzz $(BIN)/python tests/fuzz/fuzz.py --seconds $(or $(FOR),3600) --seed $(or $(SEED),0)

faults: $(INSTALLED) ## 100 kills, 30 full disks, 1,600 flipped bits, drawn by SEED
	$(BIN)/python -m pytest -q -s tests/faults --many --seed $(or $(SEED),0)

# pip-audit asks a service of the network; where that is not to be had, it says so and the rest is done. Without --strict
# it would call all well that it could not ask about.
audit: $(INSTALLED) ## known vulnerabilities, licences (licences.csv) and a bill of materials (bom.json) of what is installed
	$(PYTHON) -m venv build/audit && build/audit/bin/pip install --quiet pip-audit pip-licenses cyclonedx-bom
	$(BIN)/python -m pip freeze --exclude-editable > build/audit/installed.txt
	@build/audit/bin/pip-audit --strict --no-deps --disable-pip -r build/audit/installed.txt || \
	  echo "audit: something is vulnerable, or nothing is known of some packages, as pip-audit could not ask; the rest goes on" >&2
	build/audit/bin/pip-licenses --python $(BIN)/python --format csv --output-file licences.csv
	build/audit/bin/cyclonedx-py environment $(BIN)/python --output-file bom.json
	@grep -iE '"(chardet|nvidia-[^"]*)"' licences.csv || true

# The page is tested in Debian's browser: nothing that pip installs brings one along.
browser:
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get install -y --no-install-recommends chromium; } || \
	  { echo "the tests open the report in Chromium: apt-get install chromium" >&2; exit 1; }

check: lint types ## lint and types

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

bench: $(INSTALLED) browser ## run every benchmark in bench/
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target build/peers -r bench/peers.txt
	@set -e; for script in $(sort $(filter-out bench/measuring.py,$(wildcard bench/*.py))); do echo "== $$script"; $(BIN)/python "$$script"; done

docs: $(INSTALLED) ## build the documentation's site: build/site/index.html
	@[ -x .venv-docs/bin/mkdocs ] || $(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet -r docs/requirements.txt
	$(BIN)/python experiments/reference.py build/reference
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build

clean: ## remove the environment, the caches, what was built, and demo/
	rm -rf $(VENV) .venv-docs build dist demo *.egg-info .mypy_cache .pytest_cache .ruff_cache licences.csv bom.json
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Built once, and again when the files that decide what is in it change. The installed tools and the build of
# robustdml itself are pinned too: hence the first install, and no isolated build environment in the second.
$(INSTALLED): setup.py pyproject.toml constraints.txt tests/encoders.txt | same-python
	@command -v $(PYTHON) >/dev/null || \
	  { echo "robustdml needs Python 3.10 or newer, and there is no '$(PYTHON)': apt-get install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "robustdml needs Python 3.10 or newer, and '$(PYTHON)' is $$($(PYTHON) -V 2>&1): name another, as in PYTHON=python3.12 make test" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "'$(PYTHON)' cannot make virtual environments: apt-get install python3-venv" >&2; exit 1; }
	@echo "Installing into $(VENV): some minutes and 6 GB the first time (PyTorch brings its GPU libraries along)"
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(if $(CI),--quiet) -c constraints.txt pip setuptools
	$(BIN)/python -m pip install $(if $(CI),--quiet) -c constraints.txt --no-build-isolation -e '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $(VENV)/encoders -r tests/encoders.txt
	@touch $@

# An environment keeps the Python that it was made with; asking for another one must not be passed over in silence.
same-python:
ifneq ($(origin PYTHON),file)
	@[ ! -x $(BIN)/python ] || [ "$$($(PYTHON) -V)" = "$$($(BIN)/python -V)" ] || \
	  { echo "$(VENV) was made with $$($(BIN)/python -V), and PYTHON=$(PYTHON) asks for another: make clean first" >&2; exit 1; }
endif
