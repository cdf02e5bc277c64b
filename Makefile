PYTHON ?= python3
BIN := .venv/bin

# Sources are compiled once, and not by every process that a test starts.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: run papers test system test-slow package cluster faults gpu fuzz pages scaling docs lint lock clean

run: .venv/made  ## The main job: a flow on handwritten digits
	$(BIN)/ebflow run density

papers: .venv/made  ## Every item of the three papers at scale smoke, on one page: runs/paper/all/report.html
	OMP_NUM_THREADS=1 $(BIN)/ebflow run paper --experiment all --scale smoke --threads 1

test: .venv/made
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadgroup --no-loadscope-reorder

system: .venv/made  ## Whole runs, studies and searches, on a real Ray
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadgroup --no-loadscope-reorder -m system

test-slow: .venv/made
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m slow

package: .venv/made  ## Builds the wheel, and uses it where its core dependencies alone are installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m slow tests/package

cluster: .venv/made  ## Clusters of several nodes: grown from none, by two nodes and a bucket, by ray up
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m slow tests/pipelines/test_growing.py \
		tests/pipelines/test_cluster.py tests/pipelines/test_elastic.py tests/pipelines/test_launching.py

faults: .venv/made  ## Harms trainings in every way that they must survive; prints a table
	rm -rf runs/faults
	FAULTS=$(CURDIR)/runs/faults OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m slow tests/pipelines/faults
	$(BIN)/python -m tests.pipelines.faults.table runs/faults

gpu: .venv/made  ## Compares this machine's GPUs with its CPU, measures their speed; prints what it skips
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -rs tests/pipelines/training/test_device.py
	$(BIN)/python docs/measurements/gpu.py

fuzz: .venv/made  ## Thousands of damaged configurations, Parquet files and checkpoints
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m slow tests/fuzz

pages: .venv/made  ## MLflow's pages of real runs in a real browser; screenshots in runs/screenshots
	EBFLOW_SCREENSHOTS=$(CURDIR)/runs/screenshots OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q \
		-m slow tests/pipelines/test_browser.py

scaling: .venv/made  ## Seconds and memory by rows, cells and trials: docs/measurements/scaling.md
	$(BIN)/python docs/measurements/scaling.py

docs: .venv/docs  ## The site, its tutorials executed: docs/_build/html/index.html
	OMP_NUM_THREADS=1 PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m sphinx -W --keep-going -E -q -b html docs docs/_build/html

lint: .venv/made
	$(BIN)/ruff check .
	$(BIN)/ruff format --check ebflow pipelines tuning tests

lock:  ## Renews requirements.lock: the newest versions that pyproject.toml allows
	rm -rf runs/lock
	$(PYTHON) -m venv runs/lock
	runs/lock/bin/python -m pip install --quiet -e ".[dev,docs]"
	runs/lock/bin/python -m pip freeze --exclude-editable | sed 's/+.*//' > requirements.lock
	rm -rf runs/lock

clean:
	rm -rf .venv runs

.venv/made: pyproject.toml requirements.lock
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint requirements.lock -e ".[dev]"
	touch $@

.venv/docs: .venv/made
	$(BIN)/python -m pip install --quiet --constraint requirements.lock -e ".[docs,system]"
	touch $@
