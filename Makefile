# Everything a person does here. `make` alone lists it.
#
# `make setup` installs into the active virtual or conda environment, else into .venv, and does
# nothing when requirements.lock has not changed since.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
ENVIRONMENT := $(or $(VIRTUAL_ENV),$(CONDA_PREFIX),$(CURDIR)/.venv)
PY := $(ENVIRONMENT)/bin/python
STAMP := $(ENVIRONMENT)/.engineworks-$(shell cksum < requirements.lock | cut -d' ' -f1)
# Further words for pip, for example --extra-index-url ... for another build of torch.
PIP_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup deploy stack stack-demo stack-stop chaos chaos-delivery prove-tls demo test test-fast test-gpu test-servers servers lint ui \
	bench-spine bench-int8 bench-runtime bench-video bench-nvidia bench-fleet bench-serving fuzz-server bench-faults bench-house bench-sealed bench-shadow bench-registry soak-video schemas clean

help: ## list these commands
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP) ## create the environment and install the locked versions

$(STAMP): requirements.lock pyproject.toml
	@test -x $(PY) || $(PYTHON) -m venv $(ENVIRONMENT)
	@$(PY) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "Python 3.10 or newer is needed; say which: make setup PYTHON=python3.11"; exit 1; }
	$(PY) -m pip install --disable-pip-version-check -q -r requirements.lock $(PIP_ARGS)
	$(PY) -m pip install --disable-pip-version-check -q --no-deps --no-build-isolation -e .
	@rm -f $(ENVIRONMENT)/.engineworks-* && touch $@

demo: setup ## ship the YOLOX-Nano example on this machine
	$(PY) -m flows.ship examples/yolox_nano/recipe.yaml

# Files of tests that run side by side: one more than two cores, for many wait for servers. In the
# order of their names: the flows, which take minutes each, come early, and small ones fill the end.
TESTS_AT_ONCE ?= 3
test: setup ## all tests (minutes: real flows, a real MLflow database, real engines)
	$(PY) -m pytest -n $(TESTS_AT_ONCE) --dist loadfile --no-loadscope-reorder

test-fast: setup ## the tests that need no Prefect
	$(PY) -m pytest -m "not flows"

test-gpu: setup ## what only a machine with an NVIDIA GPU can prove; says what ran
	$(PY) -m pytest -m gpu tests/hardware -v -rsA

test-servers: servers ## what only servers of other projects can prove: packages and protocols
	ENGINEWORKS_HOME=$(SERVERS_HOME) $(PY) -m pytest -m servers tests/servers -rsA

NAMES ?=
SERVERS_HOME ?= $(or $(ENGINEWORKS_HOME),$(CURDIR)/.engineworks)
servers: setup ## install the servers that packages are proven with, each apart (NAMES=triton ...)
	$(PY) -m infra.servers $(NAMES) --home $(SERVERS_HOME)

lint: setup ## style, types and the import rules
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -c 'from importlinter.cli import lint_imports_command; lint_imports_command()'

ui: setup ## open Prefect's and MLflow's pages on this machine's state
	$(PY) -m infra.ui

deploy: setup ## register work pools and deployments with the server at PREFECT_API_URL
	$(PY) -m infra.deploy

stack: setup ## start servers and four workers on this machine, each with its own disk space
	$(PY) -m infra.stack start

stack-demo: setup ## ship the example over the stack
	$(PY) -m infra.stack demo

stack-stop: setup ## end the stack
	$(PY) -m infra.stack stop

bench-spine: setup ## measure the demo: time, memory, overhead, accuracy; prints its bars
	$(PY) -m benchmarks.spine

bench-int8: setup ## measure INT8: accuracy, speed, calibration, the usual tools; prints its bars
	$(PY) -m benchmarks.int8

bench-runtime: setup ## measure the on-device runtime against the loops of guides; prints its bars
	$(PY) -m benchmarks.runtime

bench-video: setup ## measure tracking, the video chain and many streams; prints its bars
	$(PY) -m benchmarks.video $(SEQUENCES)

bench-nvidia: setup ## measure building for RTX GPUs, and running on one where there is one
	$(PY) -m benchmarks.nvidia

bench-fleet: setup ## measure the store on S3 and the planner; prints its bars
	$(PY) -m benchmarks.fleet

PARTS ?=
bench-serving: setup ## measure our server: CPU, overload, hostile clients, swaps; prints its bars
	$(PY) -m benchmarks.serving $(PARTS)

fuzz-server: setup ## send our server what schemathesis makes of its OpenAPI; EXAMPLES=100 a route
	$(PY) -m venv .engineworks/schemathesis
	.engineworks/schemathesis/bin/pip install -q schemathesis==4.32.5
	$(PY) -m benchmarks.serving_fuzz .engineworks/schemathesis/bin/schemathesis $(EXAMPLES)

bench-faults: setup ## swapped inputs, flipped bits, hostile files, kills, signals: prints its bars (an hour)
	$(PY) -m benchmarks.faults $(PARTS)

bench-house: setup ## count the shape of the source; prints its bars
	$(PY) -m benchmarks.house

MUTATIONS ?= 500
HONEST ?= 500
bench-sealed: setup ## spoil engines, replay sealed tests: every lost point found, no false alarm (hours)
	MUTATIONS=$(MUTATIONS) HONEST=$(HONEST) $(PY) -m benchmarks.sealed

bench-shadow: setup ## a candidate beside the champion: seldom misled, a lost point is found (minutes)
	$(PY) -m benchmarks.shadow

ROUNDS ?= 30
chaos: setup ## kill workers at random moments, ROUNDS times; everything must recover
	$(PY) -m benchmarks.chaos $(ROUNDS)

chaos-delivery: setup ## attack deliveries, kill the agent, cut its power; prints its bars
	$(PY) -m benchmarks.delivery $(PARTS)

prove-tls: setup ## ship over TLS and passwords (nginx in front); no secret may leak
	$(PY) -m benchmarks.tls

bench-registry: setup ## promotions at one moment, a rollback now, requests in MLflow; prints its bars
	$(PY) -m benchmarks.registry $(PARTS)

MINUTES ?= 60
soak-video: setup ## run a looped clip for MINUTES; memory and frames are counted
	$(PY) -m benchmarks.soak_video $(MINUTES)

schemas: setup ## write the committed JSON Schemas anew
	$(PY) -m docs.write

clean: ## forget everything that runs have made here
	rm -rf .engineworks
