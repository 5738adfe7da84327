# Two commands from a fresh clone with Python 3.11, pip, make and git:
#   make search   set up, then the main job (search_spaces/quickstart.toml)
#   make test     set up, then lint, types and all tests (make check leaves out the slow ones)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
JOBS ?= $(shell nproc 2>/dev/null || echo 2)


setup: $(READY)
$(READY): pyproject.toml constraints.txt
	@echo "Setting up $(VENV): about 2 minutes and 2 GB (more where PyTorch comes with CUDA)."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt "setuptools>=77" wheel
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-build-isolation -e ".[gpu,tpu,parquet,calibrate,dev]"
	@touch $@

search: setup
	@echo "Searching shapes and tiles: under a minute on two cores."
	$(BIN)/moe-codesign search quickstart --jobs $(JOBS)

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# $(1) narrows each stage. The Triton kernels run in the interpreter, so the last stage has no use for tests/numerics.
define run_tests
	@echo "Running the Triton kernels in the interpreter."
	TRITON_INTERPRET=1 $(BIN)/python -m pytest tests/numerics -n $(JOBS) --dist worksteal -q $(1)
	@echo "Running the Pallas kernels in JAX's TPU interpreter."
	$(BIN)/python -m pytest tests/kernels -n $(JOBS) --dist worksteal -q $(1)
	@echo "Running all other tests."
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --ignore=tests/numerics --ignore=tests/kernels -n $(JOBS) --dist worksteal -q $(1)
endef

test: lint
	$(call run_tests,)

check: lint
	$(call run_tests,-m "not slow")

regress: setup
	@echo "Compiling every kernel for six chips and comparing with the baseline: about 2 minutes on two cores."
	$(BIN)/moe-codesign regress benchmarks/baselines/default.toml --jobs $(JOBS)

facts: setup
	@echo "Compiling the facts that ship with the package; goes on where it stopped. All of them take many hours."
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/shipped/facts.py --jobs $(JOBS)

facts-check: setup
	@echo "Compiling a sample of the shipped facts again, 2 % of each target: about 2 minutes on two cores."
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/shipped/facts.py --check 0.02 --jobs $(JOBS)

bench: setup
	@echo "Benchmarks: host kernels, compile throughput, predictions and trials per second; under a minute once tiles are cached."
	$(BIN)/python -m pytest benchmarks --benchmark-only --benchmark-columns=min,median,max,rounds

bench-gpu: setup
	$(BIN)/python benchmarks/gpu/layers.py

accuracy: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check aiconfigurator-core==0.12.0
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/accuracy/run.py

DATA ?= build/aisimulate
RUNS ?= $(DATA)/aisimulate_core/systems/silicon_sample.csv

# The wheel pins an old JAX, so that it is unpacked and not installed.
$(DATA):
	mkdir -p $(DATA)
	$(BIN)/python -m pip download --quiet --no-deps --dest $(DATA) aisimulate==0.13.0.dev202610270000000085
	cd $(DATA) && unzip -q aisimulate-*.whl

operations: setup $(DATA)
	@echo "Fitting the operations of whole models to measured times: about 2 minutes for each of 27 sets."
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/shipped/operations.py $(DATA) --jobs $(JOBS)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/shipped/roofline_operations.py $(DATA)

serving-rules: setup $(DATA)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/shipped/serving.py $(RUNS)

accuracy-serving: setup
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/accuracy/serving.py

coverage: setup
	$(BIN)/python benchmarks/accuracy/interval_coverage.py

study-search: setup
	@echo "Comparing samplers with the exact frontier of 222,053 shapes on two chips, then 10,000 trials by four processes"
	@echo "on a PostgreSQL server (apt-get install postgresql): about an hour on two cores."
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/search/across.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/search/samplers.py --jobs $(JOBS)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/search/many_processes.py

docs: setup
	$(BIN)/python docs/generate.py

clean:
	rm -rf $(VENV) build dist *.egg-info
