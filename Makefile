# Every target sets up .venv by itself when it is missing or older than the pins.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: help setup hooks demo test lint format docs params schema losses bench soak clean

# the first Python between 3.11 and 3.13 on the PATH; override with make PYTHON=...
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	&& echo $$python && break; done)
CORES ?= all
GPUS ?= $(shell nvidia-smi --list-gpus 2>/dev/null | wc -l)

export PATH := $(CURDIR)/.venv/bin:$(PATH)
READY := .venv/.ready

help:
	@echo "make demo    phantom data to report: a whole run on the CPU in a few minutes"
	@echo "make test    the test suite, and the share of lines that it covers"
	@echo "make lint    ruff, snakefmt, Snakemake's own lint and mypy"
	@echo "make format  let ruff and snakefmt mend what they can"
	@echo "make docs    the documentation as a site, in docs/_build"
	@echo "make hooks   run the lint before every commit"
	@echo "make params  write params.yaml again: the packaged defaults, explained"
	@echo "make schema  write workflow/schemas/params.schema.json again"
	@echo "make losses  compare the losses of a small training with tests/golden/losses.csv"
	@echo "make bench   measure this machine (benchmarks/)"
	@echo "make soak    kills, damaged files, full disks: the table of docs/reliability.md"
	@echo "make clean   remove results, logs and the workflow's memory; keeps .venv, data and runs"

setup: $(READY)

$(READY): requirements.txt pyproject.toml setup.py
	@test -n "$(PYTHON)" || { echo "No Python 3.11 to 3.13 found: install one, or name it: make PYTHON=/path/to/python" >&2; exit 2; }
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check "$$(grep '^pip==' requirements.txt)"
	.venv/bin/python -m pip install --quiet -r requirements.txt
	.venv/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

demo: $(READY)
	snakemake --cores $(CORES) --resources gpu=$(GPUS)
	hsam summary

test: $(READY)
	python -m pytest -n auto --dist loadfile --cov --cov-report=term

lint: $(READY)
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile workflow
	snakemake --lint
	mypy

format: $(READY)
	ruff check --fix .
	ruff format .
	snakefmt Snakefile workflow

docs: $(READY)
	sphinx-build -W --keep-going -b html docs docs/_build

hooks: $(READY)
	pre-commit install

params: $(READY)
	hsam params --params pipeline/core/params/defaults.yaml --write params.yaml

schema: $(READY)
	hsam params --schema > workflow/schemas/params.schema.json

losses: $(READY)
	python -m tests.golden.losses

bench: $(READY)
	python benchmarks/train.py
	python benchmarks/encoders.py
	python benchmarks/slices.py
	python benchmarks/predict.py
	python benchmarks/score.py
	python benchmarks/intervals.py
	python benchmarks/load.py
	python benchmarks/memory.py

soak: $(READY)
	python -m tests.soak --write

clean:
	rm -rf results reports logs .snakemake
