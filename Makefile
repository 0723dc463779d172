# Each target is one call of `python -m tools`; the environments under .venv/ are made on first use.
# Variables: DEST= COMPONENTS= OFFLINE=1 FORCE=1 UPSTREAM= JSON=1 and ARGS= (for pytest); a target's own are beside it.

PYTHON ?= python3
VENV := .venv
TOOLS := $(VENV)/tools/bin/python -m tools
PIP := python -m pip install -qq --disable-pip-version-check
HASHED := tools suite check supply
UNHASHED := test sage frozen bench
.DEFAULT_GOAL := help
.SUFFIXES:
# A target's environment must stand before it; two of them at once are fine.
MAKEFLAGS += --no-print-directory

# The verbs are found in this folder.
export PYTHONSAFEPATH :=

# Those hold what a user likes: make would expand them for the environment of every command.
unexport DEST COMPONENTS UPSTREAM ADD DROP CONTEXT FILE EXPORT TREE BASELINE BASELINE_FROM ADOPT DESCRIPTION URL TO

# What was given for a variable reaches its verb as it is: one word, of which neither make nor the shell expands anything.
quoted = '$(subst ','\'',$(value $1))'
option = $(if $(value $2),--$1 $(call quoted,$2))
switch = $(if $(filter-out 0,$(value $2)),--$1)
dest := $(call option,dest,DEST)
components := $(call option,components,COMPONENTS)
offline := $(call switch,offline,OFFLINE)
force := $(call switch,force,FORCE)
upstream := $(call option,upstream,UPSTREAM)
choices := $(call option,add,ADD) $(call option,drop,DROP) $(call switch,allow-loss,ALLOW_LOSS)
json := $(call switch,json,JSON)
# An environment may have a URL for something else.
url := $(if $(filter command,$(origin URL)),$(call option,url,URL))

.PHONY: help vendor verify diff status clean audit refresh lock outdated rebase rebase-continue rebase-status rebase-abort docs check test test-sage test-torch test-frozen fuzz hostile stress bench requirements advisories distclean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1@\2/p' Makefile | awk -F'@' '{printf "make %-15s %s\n", $$1, $$2}'

vendor: $(VENV)/tools/ready ## get the pinned files, patch them, verify them, swap them in
	@$(TOOLS) vendor $(dest) $(components) $(offline) $(force) $(upstream) $(json)

verify: $(VENV)/tools/ready ## check a vendored tree against the lock, offline
	@$(TOOLS) verify $(dest) $(components) $(json)

diff: $(VENV)/tools/ready ## show upstream against the vendored tree (CONTEXT=3 FILE=... EXPORT=dir)
	@$(TOOLS) diff $(dest) $(offline) $(upstream) $(json) $(call option,context,CONTEXT) $(call option,file,FILE) \
	  $(call option,export,EXPORT)

status: $(VENV)/tools/ready ## show pin, store, tree and patches at a glance
	@$(TOOLS) status $(dest) $(json)

clean: $(VENV)/tools/ready ## remove the vendored tree; store and environments stay
	@$(TOOLS) clean $(dest) $(force) $(json)

audit: $(VENV)/tools/ready ## compare upstream, baseline and tree (TREE= BASELINE= BASELINE_FROM= HTML=1 CHECK=1)
	@$(TOOLS) audit $(dest) $(offline) $(upstream) $(json) $(call option,tree,TREE) $(call option,baseline,BASELINE) \
	  $(call option,baseline-from,BASELINE_FROM) $(call switch,html,HTML) $(call switch,check,CHECK)

refresh: $(VENV)/tools/ready ## turn edits in the vendored tree into patches (ADOPT=path for a first patch)
	@$(TOOLS) refresh $(dest) $(components) $(offline) $(upstream) $(json) $(call option,adopt,ADOPT) \
	  $(call option,description,DESCRIPTION)

lock: $(VENV)/tools/ready ## compute upstream.lock anew from upstream and the patches
	@$(TOOLS) lock $(upstream) $(json)

outdated: $(VENV)/tools/ready ## show what upstream has that the pin has not, and what a rebase would meet
	@$(TOOLS) outdated $(offline) $(upstream) $(json)

rebase: $(VENV)/tools/ready ## carry the patches to TO=branch|tag|commit (DRY_RUN=1 URL= ADD= DROP= ALLOW_LOSS=1)
	@$(TOOLS) rebase $(url) $(upstream) $(offline) $(choices) $(json) $(call switch,dry-run,DRY_RUN) \
	  -- $(call quoted,TO)

rebase-continue: $(VENV)/tools/ready ## go on with a rebase that stopped (ADD= DROP= ALLOW_LOSS=1)
	@$(TOOLS) rebase-continue $(offline) $(choices) $(json)

rebase-status: $(VENV)/tools/ready ## show the rebase that is under way
	@$(TOOLS) rebase-status $(json)

rebase-abort: $(VENV)/tools/ready ## forget the rebase that is under way
	@$(TOOLS) rebase-abort $(json)

docs: $(VENV)/tools/ready ## bring the computed tables in the documents up to date
	@$(TOOLS) lint --write $(json)

check: $(VENV)/check/ready ## lint and format (ruff), types (mypy), workflows (zizmor), patches and documents
	@$(VENV)/check/bin/ruff check .
	@$(VENV)/check/bin/ruff format --check .
	@$(VENV)/check/bin/mypy
	@$(VENV)/check/bin/zizmor --offline --quiet --no-progress .github
	@$(VENV)/check/bin/python -m tools lint

test: $(VENV)/test/ready ## run the whole suite (ARGS= for pytest, REQUIRE_UPSTREAM=1: no skips for missing files)
	@$(VENV)/test/bin/python -m pytest $(ARGS)

test-sage: $(VENV)/sage/ready ## run the attention tests with the real SageAttention 1.0.6, no GPU needed
	@$(VENV)/sage/bin/python -m pytest tests/models/test_sage_real.py tests/models/test_attend.py $(ARGS)

# PYTHON= may be 3.10 here, the app's.
torch-env = $(VENV)/torch-$(TORCH)-python$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')

test-torch: ## run the model tests on another torch, and keep the results (TORCH=2.2.2 PYTHON=python3.10)
	@test -n "$(TORCH)" || { echo "error: which torch?"; echo "next: make test-torch TORCH=2.2.2"; exit 2; } >&2
	@$(MAKE) $(torch-env)/ready
	@$(torch-env)/bin/python -m pytest tests/models --results tests/results $(ARGS)

test-frozen: $(VENV)/frozen/ready ## freeze a program with the models (cx_Freeze), compare it with the plain one (KEEP=1 keeps figures)
	@$(if $(filter-out 0,$(KEEP)),KEEP=1) $(VENV)/frozen/bin/python -m pytest tests/frozen $(ARGS)

fuzz: $(VENV)/test/ready ## bend patches, locks, manifests and wheels at random for SECONDS=120; writes docs/figures/
	@$(VENV)/test/bin/python -m tests.tools.hostile.fuzz $(or $(SECONDS),120)

hostile: $(VENV)/test/ready ## give every hostile input to the command line, and count what is refused; writes docs/figures/
	@$(VENV)/test/bin/python -m tests.tools.hostile $(ARGS)

stress: $(VENV)/test/ready ## cut off hundreds of runs at random moments, and run eight at once (KILLS=300)
	@$(VENV)/test/bin/python -m tests.stress $(if $(KILLS),--kills "$(KILLS)") $(ARGS)

bench: $(VENV)/bench/ready ## measure attention, SCNet, BSRoformer and vendoring; writes bench/results/
	@$(VENV)/bench/bin/python -m bench $(ARGS)

upgrade := $(if $(filter-out 0 1,$(UPGRADE)),--upgrade-package "$(UPGRADE)",$(if $(filter-out 0,$(UPGRADE)),--upgrade))
PIN = $(VENV)/supply/bin/uv pip compile --quiet --no-config --universal --custom-compile-command "make requirements" $(upgrade)

# One resolution for Linux, Windows and macOS. The model tests run on Python 3.10 as well, hence the two lowest ones.
requirements: $(VENV)/supply/ready ## pin what requirements/*.in name, transitively and with hashes (UPGRADE=1 or =package)
	@$(PIN) --generate-hashes --python-version 3.10 requirements/tools.in -o requirements/tools.txt
	@$(PIN) --generate-hashes --python-version 3.10 requirements/suite.in -o requirements/suite.txt -c requirements/tools.txt
	@$(PIN) --generate-hashes --python-version 3.11 requirements/check.in -o requirements/check.txt -c requirements/tools.txt
	@$(PIN) --generate-hashes --python-version 3.11 requirements/supply.in -o requirements/supply.txt
	@printf 'torch\ntriton\n' | $(PIN) --python-version 3.11 $(UNHASHED:%=requirements/%.txt) --excludes /dev/stdin \
	  -o requirements/constraints.txt -c requirements/suite.txt

advisories: $(VENV)/supply/ready ## ask PyPI for known vulnerabilities in what requirements/ pins (exit 1: some, 5: no answer)
	@$(VENV)/supply/bin/python requirements/advisories.py $(HASHED:%=requirements/%.txt) requirements/constraints.txt

distclean: ## remove the vendored tree and the environments
	rm -rf $(VENV) vendor build/audit .mypy_cache .pytest_cache .ruff_cache .hypothesis

# rotary-embedding-torch asks for torch 2.4, hyper-connections for 2.5, and their code runs on 2.0: hence without their
# dependencies. Torch before 2.3 was built for NumPy 1.
$(VENV)/torch-%/ready: requirements/models.txt requirements/suite.txt
	@echo "setting up $(VENV)/torch-$*, some gigabytes where the index has no CPU build" >&2
	@rm -rf $(VENV)/torch-$*
	@$(PYTHON) -m venv $(VENV)/torch-$*
	@$(VENV)/torch-$*/bin/$(PIP) --require-hashes -r requirements/suite.txt >&2
	@case "$*" in 2.[012].*) numpy='numpy<2';; *) numpy=numpy;; esac; torch="$*"; \
	$(VENV)/torch-$*/bin/$(PIP) "torch==$${torch%-python*}" "$$numpy" $$(grep '^librosa' requirements/models.txt) >&2
	@$(VENV)/torch-$*/bin/$(PIP) --no-deps -r requirements/models.txt hyper-connections==0.4.11 torch-einops-utils==0.2.0 >&2
	@touch $@

# An environment is made anew when its requirements change, and counts only once it is complete.
define new-environment
@echo "setting up $(@D)" >&2
@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("error: Python 3.11 or later is needed, $(PYTHON) is " + sys.version.split()[0] + "\nnext: make PYTHON=python3.11 ...")'
@rm -rf $(@D)
@$(PYTHON) -m venv $(@D)
endef

$(HASHED:%=$(VENV)/%/ready): $(VENV)/%/ready: requirements/%.txt
	$(new-environment)
	@$(@D)/bin/$(PIP) --require-hashes -r $< >&2
	@touch $@

# What differs from machine to machine comes after the rest, whose hashes pip would not check beside it.
$(VENV)/%/ready: requirements/%.txt $(addprefix requirements/,suite.txt test.txt models.txt constraints.txt)
	$(new-environment)
	@$(@D)/bin/$(PIP) --require-hashes -r requirements/suite.txt >&2
	@$(@D)/bin/$(PIP) -r $< -c requirements/constraints.txt >&2
	@touch $@
