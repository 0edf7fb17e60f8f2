# What a person types. Everything else is in noxfile.py.
.DEFAULT_GOAL := help
PODYARD := .venv/bin/podyard

.PHONY: help up down test faults lint types bench lock

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /	/' | expand -t 10

up:  ## set up, start Podyard, run the demo Pod and show its log
	@scripts/setup run
	@scripts/demo

down:  ## stop Podyard and its Pods; nothing of it stays but the data directory
	@$(PODYARD) down

test:  ## set up and run every test
	@scripts/setup test
	@scripts/test

faults:  ## 200 kills at random moments (SEED=, KILLS=), written to benchmarks/FAULTS.md
	@scripts/setup test
	@.venv/bin/python -m pytest -q tests/faults --kills $(or $(KILLS),200) $(if $(SEED),--seed $(SEED))

lint:  ## formatting, style and the contracts between rooms
	@.venv/bin/ruff format --check . && .venv/bin/ruff check . && .venv/bin/lint-imports && .venv/bin/codespell

types:  ## mypy and pyright
	@.venv/bin/mypy && .venv/bin/pyright

bench:  ## benchmarks, written to benchmarks/RESULTS.md
	@scripts/setup test
	@.venv/bin/python -m benchmarks

lock:  ## write requirements/*.txt anew (needs uv)
	@scripts/lock
