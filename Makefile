# One command to start, one to check everything. ARGS is passed on: make demo ARGS="--json"
PYTHON ?= python3
BIN := .venv/bin
.DEFAULT_GOAL := help

.PHONY: help setup demo test check fast fuzz chaos lint types bench bench-learning bench-year bench-shops bench-shoppers bench-unusual bench-levels bench-reviews bench-campaigns bench-webhooks bench-effect bench-api bench-readers lock schemas dashboards examples up clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: .venv/ready ## the environment, from the lock file

.venv/ready: requirements.lock pyproject.toml stream/face.py
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "setting up .venv from requirements.lock" >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-index --editable . >&2
	@touch $@

demo: setup ## a simulated shop on a local broker and store, all roles as real processes
	@$(BIN)/segstream demo $(ARGS)

test: setup ## every test; real Kafka and Redis are started by the tests
	@# Two runs, for those with servers stay with their file: the tests of a file share its servers.
	@# 5 says that ARGS chose none of a kind. ARGS="-n 0" runs one test at a time.
	@$(BIN)/python -m pytest -n 2 -m "not servers" $(ARGS) || [ $$? -eq 5 ]
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m servers $(ARGS) || [ $$? -eq 5 ]

check: lint types fast ## what every change is held to before the servers are started

fast: setup ## the tests that need no server, in under a minute
	@$(BIN)/python -m pytest -n 2 -m "not servers and not slow" $(ARGS)

fuzz: setup ## look for a message that breaks something: ten minutes each at messages, rows, letters
	@$(BIN)/python -m tests.fuzz $(ARGS)

lint: setup ## ruff, for faults and for form
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: setup ## mypy, strict, tests too
	@$(BIN)/mypy

bench: setup ## the whole job against the ceiling and the plain loop, on real Kafka
	@$(BIN)/python -m ops.bench $(ARGS)

bench-learning: setup ## how well segments are learned, named and published, against rivals
	@$(BIN)/python -m ops.bench.learning $(ARGS)

chaos: setup ## kills, freezes, losses and cuts under live traffic, and a judge of its own
	@$(BIN)/python -m ops.chaos $(ARGS)

bench-year: setup ## a shop's year in memory: do segments keep their meaning?
	@$(BIN)/python -m ops.bench.year $(ARGS)

bench-campaigns: setup ## changes a second decided about on one core, and how soon a trigger is there
	@$(BIN)/python -m ops.bench.campaigns $(ARGS)

bench-webhooks: setup ## webhooks a second on one core, and what a dead endpoint does to the others
	@$(BIN)/python -m ops.bench.webhooks $(ARGS)

bench-effect: setup ## 300 simulated campaigns: may the measured effect be believed?
	@$(BIN)/python -m ops.bench.effect $(ARGS)

bench-shoppers: setup ## who buys again: scores against what shoppers did, and against rivals
	@$(BIN)/python -m ops.bench.shoppers $(ARGS)

bench-unusual: setup ## who is unusual: injected bots and others, and the first of a real shop
	@$(BIN)/python -m ops.bench.unusual $(ARGS)

bench-levels: setup ## what levels and scores add to a sweep of the owner
	@$(BIN)/python -m ops.bench.levels_cost $(ARGS)

bench-reviews: setup ## sentiment of reviews, learned in one pass: are bad ones ranked below good ones?
	@$(BIN)/python -m ops.bench.reviews $(ARGS)

bench-shops: setup ## names and kinds in shops of many rhythms: are they true?
	@$(BIN)/python -m ops.bench.shops $(ARGS)

bench-api: setup ## looking users up over HTTP: how long it takes, and how many a second on one core
	@$(BIN)/python -m ops.bench.api $(ARGS)

bench-readers: setup ## what a hundred readers of the event stream cost the owners
	@$(BIN)/python -m ops.bench.readers $(ARGS)

lock: ## write requirements.lock anew from pyproject.toml (needs uv)
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate \
	  --python-version 3.11 --all-extras --group dev pyproject.toml -o requirements.lock
	uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate \
	  --python-version 3.11 --extra api --extra files --extra fast --extra webhooks --constraint requirements.lock pyproject.toml \
	  -o requirements-core.lock

schemas: setup ## write the JSON Schemas of what goes out
	@$(BIN)/python -m ops.schemas

dashboards: setup ## write Grafana's dashboards from what is declared
	@$(BIN)/python -m ops.grafana

examples: setup ## write the examples of README and guide, from a run
	@$(BIN)/python -m ops.examples

up: ## Kafka, Redis, all roles, Prometheus and Grafana in containers
	docker compose up --build --wait

clean: ## forget the environment and caches
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis
