# Each verb runs `python -m tools VERB`. Environments are made on first use. For GNU make 3.81 and later.

PYTHON ?= python3
VENV := .venv
TOOLS := DSU_PATCHES_BY_MAKE=1 $(VENV)/tools/bin/python -m tools
PIP = python -m pip install -qq --disable-pip-version-check $(if $(value TORCH_INDEX),--extra-index-url $(call quoted,TORCH_INDEX))
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory
# These of the user's variables would hide tools/, or install packages outside the environments.
export PIP_USER := 0
unexport PYTHONSAFEPATH PIP_TARGET PIP_PREFIX

takes-vendor := DEST COMPONENTS EXTRAS UPSTREAM OFFLINE FORCE ## get the pinned files, patch, verify, put in place
takes-verify := DEST COMPONENTS ## check a vendored tree against the lock, offline
takes-diff := DEST FILE CONTEXT EXPORT UPSTREAM OFFLINE ## show upstream against the vendored tree
takes-status := DEST ## show pin, tree, patches, extras and a rebase
takes-clean := DEST FORCE ## take it back: remove our files, put back what was there
takes-audit := DEST BASELINE BASELINE_FROM HTML CHECK UPSTREAM OFFLINE ## compare upstream, baseline and tree
takes-refresh := DEST ADOPT DROP DESCRIPTION UPSTREAM OFFLINE ## turn edits in the vendored tree into patches
takes-lock := UPSTREAM ## compute upstream.lock and the tables in the documents
takes-lint := ## check lock, patches and the tables in the documents, offline
takes-outdated := UPSTREAM OFFLINE ## show what is newer upstream, and what a rebase meets
takes-rebase := TO DRY_RUN ADD DROP ALLOW_LOSS UPSTREAM OFFLINE ## carry the patches to another commit of upstream
takes-rebase-continue := ADD DROP ALLOW_LOSS OFFLINE ## continue a rebase that stopped, once it is resolved
takes-rebase-status := ## show the rebase under way, and the open decisions
takes-rebase-abort := ## forget the rebase under way
verbs := $(patsubst takes-%,%,$(filter takes-%,$(.VARIABLES)))
#: DEST=folder      the tree, a folder with models/ in it; by default vendor/
#: COMPONENTS=names only these components
#: EXTRAS=names     also the patches of these extras, until EXTRAS=none
#: UPSTREAM=place   ask this first: a clone, URL, bundle, or folder of files
#: OFFLINE=1        ask no network
#: FORCE=1          replace others' files, remove edits; the store keeps copies
#: JSON=1           print JSON only; for every verb
#: TORCH_INDEX=url  ask this index for torch too, such as one of small builds
#: `python -m tools VERB --help` tells more. no, false, off, 0 or nothing: off.
switches := OFFLINE FORCE JSON HTML CHECK DRY_RUN ALLOW_LOSS
takes := JSON $(foreach verb,$(if $(filter-out $(verbs),$(or $(MAKECMDGOALS),help)),$(verbs),$(MAKECMDGOALS)),$(takes-$(verb)))
known := $(takes) PYTHON VENV ARGS TORCH TORCH_INDEX KILLS UPGRADE
unexport $(known) $(switches)
given := $(foreach name,$(.VARIABLES),$(if $(filter command,$(origin $(name))),$(name)))
nearest = import difflib, sys; print(*difflib.get_close_matches(sys.argv[1].upper(), sys.argv[2:], 1, 0) or ["none"])
unknown := $(firstword $(filter-out $(known),$(given)))
$(if $(unknown),$(error unknown variable $(unknown)= for make $(MAKECMDGOALS); the nearest is $(shell $(PYTHON) -c '$(nearest)' '$(unknown)' $(takes))=))
$(shell for env in $(VENV)/*/ready; do test -x "$${env%ready}bin/python" || rm -f "$$env"; done)

# Neither make nor the shell expands anything in a value.
quoted = '$(subst ','\'',$(value $1))'
on = $(if $(filter $1,$(given)),$(filter-out 0 no No NO false False FALSE off Off OFF,$(value $1)))
option = $(if $(filter $1,$(switches)),$(if $(call on,$1),--$1$(if $(filter HTML,$1),=$(quoted))),$(if $(filter $1,$(given)),$(if $(value $1),--$1=$(quoted))))

.PHONY: $(verbs) help check test test-sage test-torch test-frozen stress bench requirements advisories distclean
help:
	@sed -n 's/^takes-\([a-z-]*\) := \([^#]*\)## \(.*\)/\1@\3@\2/p' Makefile | awk -F@ '{printf "make %-16s %s\n%s", $$1, $$2, $$3 ? "                        " $$3 "\n" : ""}'
	@echo; echo variables:; sed -n 's/^#: /  /p' Makefile
	@echo; echo development:; sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1@\2/p' Makefile | awk -F@ '{printf "make %-16s %s\n", $$1, $$2}'

$(verbs): $(VENV)/tools/ready
	@$(TOOLS) $@ $(foreach name,$(takes-$@) JSON,$(call option,$(name)))

check: $(VENV)/check/ready ## lint, types, floors, workflows, patches, documents
	@$(VENV)/check/bin/ruff check .
	@$(VENV)/check/bin/ruff format --check .
	@$(VENV)/check/bin/mypy
	@$(VENV)/check/bin/lint-imports --no-logo
	@$(VENV)/check/bin/zizmor --offline --quiet --no-progress .github
	@$(VENV)/check/bin/python -m tools lint

test: $(VENV)/test/ready ## run the whole suite (ARGS= for pytest)
	@$(VENV)/test/bin/python -m pytest $(ARGS)
test-sage: $(VENV)/sage/ready ## run attention tests with SageAttention 1.0.6, no GPU
	@$(VENV)/sage/bin/python -m pytest tests/models/test_sage_real.py tests/models/test_attend.py $(ARGS)
test-torch: ## run the model tests on another torch (TORCH=2.2.2)
	@$(MAKE) $(torch-env)/ready
	@$(torch-env)/bin/python -m pytest tests/models --results tests/results $(ARGS)
torch-env = $(VENV)/torch-$(or $(TORCH),$(error which torch? next: make test-torch TORCH=2.2.2))-python$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
test-frozen: $(VENV)/frozen/ready ## compare a program frozen by cx_Freeze with the plain one
	@$(VENV)/frozen/bin/python -m pytest tests/frozen $(ARGS)
stress: $(VENV)/test/ready ## kill runs at random, start eight at once (KILLS=300)
	@$(VENV)/test/bin/python -m tests.stress $(if $(KILLS),--kills "$(KILLS)") $(ARGS)
bench: $(VENV)/bench/ready ## measure attention, models, vendoring into bench/results/
	@$(VENV)/bench/bin/python -m bench $(ARGS)

more-sage := sageattention==1.0.6 triton==3.7.1
more-frozen := cx_Freeze==8.7.3
more-bench := matplotlib==3.11.2
requirements: $(VENV)/check/ready ## pin what requirements/ names (UPGRADE=1 or =package)
	@UPGRADE='$(call on,UPGRADE)' requirements/pin $(VENV)/check/bin/uv $(more-sage) $(more-frozen) $(more-bench)
advisories: $(VENV)/check/ready ## ask PyPI for known holes in packages
	@$(VENV)/check/bin/pip-audit --strict --disable-pip --no-deps $(addprefix -r ,$(wildcard requirements/[!m]*.txt))

distclean: $(if $(wildcard vendor),$(VENV)/tools/ready) ## remove tree and environments; edits and a rebase stop it
	@test ! -e build/rebase || { echo "error: a rebase is under way"; echo "next: make rebase-abort"; exit 2; } >&2
	@(test ! -e vendor || $(TOOLS) clean) && rm -rf $(VENV) build .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

# Two packages ask for a newer torch than their code needs, so pip takes no dependencies of theirs. torch before 2.3 was built for NumPy 1.
$(VENV)/torch-%/ready: requirements/models.txt requirements/suite.txt
	@echo "setting up $(@D), some gigabytes where the index has no CPU build" >&2; rm -rf $(@D) && $(PYTHON) -m venv $(@D)
	@$(@D)/bin/$(PIP) --require-hashes -r requirements/suite.txt >&2
	@case "$*" in 2.[012].*) numpy='numpy<2';; *) numpy=numpy;; esac; torch="$*"; \
	$(@D)/bin/$(PIP) "torch==$${torch%-python*}" "$$numpy" $$(grep '^librosa' requirements/models.txt) >&2
	@$(@D)/bin/$(PIP) --no-deps $$(grep '^rotary\|^hyper' requirements/models.txt) torch-einops-utils==0.2.0 >&2
	@touch $@

# An environment is made again when its requirements change or its Python is gone. `ready` marks a complete one.
define new-environment
@echo "setting up $(@D): $(if $(filter tools check,$*),some seconds,minutes; torch is hundreds of megabytes or more)" >&2
@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("error: Python 3.11 or later is needed, $(PYTHON) is " + sys.version.split()[0] + "\nnext: make PYTHON=python3.11 ...")'
@rm -rf $(@D) && $(PYTHON) -m venv $(@D)
endef

$(VENV)/tools/ready $(VENV)/check/ready: $(VENV)/%/ready: requirements/%.txt
	$(new-environment)
	@$(@D)/bin/$(PIP) --require-hashes -r $< >&2 && touch $@

$(VENV)/%/ready: requirements/suite.txt requirements/models.txt requirements/constraints.txt
	$(new-environment)
	@$(@D)/bin/$(PIP) --require-hashes -r requirements/suite.txt >&2
	@$(@D)/bin/$(PIP) -r requirements/models.txt $(more-$*) -c requirements/constraints.txt >&2 && touch $@
