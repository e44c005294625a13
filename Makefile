# make train | train-atari | cluster | cluster-hosts | soak | study-memory | study-freeze | test | lint | format | lock | clean.
# Nothing has to be set up by hand: the first call makes .venv from the lock (2.3 GB, some minutes), later calls find it.
#
#   make train ROOT_DIR=runs/mine ARGS="--seed=3"   another folder, further flags of launch.train
#   make cluster ACTORS=4                           replay server, learner, actors, evaluator: a process each
#   make test JOBS=4                                tests that run side by side (2)
#   make clean train PYTHON=/usr/bin/python3.10     another Python (3.9 to 3.11) to make .venv with

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.PHONY: help train train-atari cluster cluster-hosts soak study-memory study-freeze test lint format lock clean rendering-packages test-packages

PYTHON ?=
GIN_FILE ?= gin_configs/cartpole_swingup_cpu.gin
RUN_NAME := cartpole-swingup
ROOT_DIR ?= runs/$(RUN_NAME)-$(shell date +%Y%m%d-%H%M%S)
ARGS ?=
JOBS ?= 2
ACTORS ?= 2

VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready
UV := 0.13.9

# OpenGL without a screen (MuJoCo renders through EGL or OSMesa), and what only the tests need.
RENDERING := libegl1 libgl1 libgl1-mesa-dri libosmesa6
TESTING := bazel-bootstrap

help:
	@sed -n '/^$$/q;s/^# \{0,1\}//p' Makefile

train-atari: GIN_FILE = gin_configs/rainbow_atari_cpu.gin
train-atari: RUN_NAME = rainbow-atari

train train-atari: $(READY)
	$(RUN) -m launch.train --gin_file=$(GIN_FILE) --root_dir=$(ROOT_DIR) $(ARGS)

cluster: $(READY)
	tools/cluster.sh $(ROOT_DIR) $(ACTORS) --gin_file=$(GIN_FILE) $(ARGS)

# A network namespace for each process, as root; DELAY, LOSS, CUT_SECONDS, CUT_WHEN: see tools/cluster_hosts.sh.
cluster-hosts: $(READY)
	@tools/debian_packages.sh iproute2
	tools/cluster_hosts.sh $(ROOT_DIR) $(ACTORS) --gin_file=$(GIN_FILE) $(ARGS)

study-memory: $(READY)
	$(RUN) -m studies.memory $(ARGS)

# Hours; goes on where it was stopped. ARGS="--tasks=krull --seeds=1" for a part of it.
study-freeze: $(READY)
	$(RUN) -m studies.freeze $(ARGS)

# Kills processes of runs at random, some minutes long. ARGS="--seed=1 --kills=200" for another plan.
soak: $(READY)
	$(RUN) -m tests.soak --seed=0 --kills=50 $(ARGS)

test: test-packages lint
	$(RUN) -m pytest -q --numprocesses=$(JOBS) --dist=worksteal $(ARGS)

lint: $(READY)
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check

format: $(READY)
	$(RUN) -m ruff check --fix
	$(RUN) -m ruff format

# Keeps every pinned version that setup.py still allows; delete requirements.txt first to take the newest.
# MuJoCo's newer releases have no wheel for Python 3.9, and its source does not build by itself.
lock: $(READY)
	$(RUN) -m venv build/lock
	build/lock/bin/python -m pip install -q uv==$(UV)
	build/lock/bin/uv pip compile -q --universal --python-version=3.9 --extra=test --generate-hashes \
	  --only-binary=mujoco --no-annotate --custom-compile-command='make lock' --output-file=requirements.txt setup.py

clean:
	rm -rf $(VENV) build .pytest_cache .ruff_cache .hypothesis seer_tf.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# gym comes as source only. It is built with the locked setuptools, so these go in first and nothing unhashed is fetched.
$(READY): requirements.txt setup.py | rendering-packages
	@$(RUN) -c 'import pip' 2>/dev/null || { \
	  python="$$(tools/find_python.sh $(PYTHON))"; \
	  $$python -c 'import ensurepip' 2>/dev/null || tools/debian_packages.sh $$(basename $$python)-venv; \
	  rm -rf $(VENV); $$python -m venv $(VENV); }
	@echo 'Installing the locked Python packages into $(VENV): 2.3 GB, once, some minutes.'
	@awk '/^[a-z]/ { wanted = /^(setuptools|wheel)==/ } wanted' requirements.txt > $(VENV)/build.txt
	$(RUN) -m pip install -q --no-deps --require-hashes -r $(VENV)/build.txt
	$(RUN) -m pip install --no-deps --require-hashes --no-build-isolation --progress-bar=off -r requirements.txt \
	  | sed -u '/already satisfied/d;/^Ignoring/d'
	$(RUN) -m pip install -q --no-deps --no-build-isolation -e .
	@touch $(READY)

rendering-packages:
	@tools/debian_packages.sh $(RENDERING)

test-packages:
	@tools/debian_packages.sh $(RENDERING) $(TESTING)
