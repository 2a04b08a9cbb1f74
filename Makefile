# make demo, make test: all that a fresh machine needs is Python 3.11 and make.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
# Two processes of one thread beat one process of two; cold imports are faster with bytecode.
export OMP_NUM_THREADS := 1
export TITER_DATA ?= $(abspath $(wildcard ../shared/data))
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-slow check bench bench-assess bench-attacks bench-defenses bench-modalities bench-guard clean
.DELETE_ON_ERROR:

demo: .venv/demo.installed
	$(BIN)/titer assess plans/quickstart.toml

test: check
	$(BIN)/pytest -n 2 --dist worksteal -m "not slow"

# Faults of the guard at length: every kill point twenty times, thousands of mutated files, pages in a browser.
test-slow: .venv/test.installed
	$(BIN)/pytest -n 2 --dist worksteal -m slow

check: .venv/test.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench bench-assess: .venv/bench.installed
	$(BIN)/python benchmarks/assess.py

# About an hour of CPU the first time; what is kept in .cache/bench-attacks is not run again (see --help).
bench-attacks: .venv/demo.installed .venv-peers/installed
	$(BIN)/python benchmarks/attacks.py

# Five trials of the defences that a figure is asked of; what is finished in .cache/bench-defenses is not run again.
bench-defenses: .venv/test.installed
	$(BIN)/python benchmarks/defenses.py

# Every modality's plan on its real data; what is finished in .cache/bench-modalities is not run again.
bench-modalities: .venv/test.installed
	$(BIN)/python benchmarks/modalities.py

# The guard on an idle machine, beside Orthanc and DCMTK: speed, memory under attack, what is caught; then
# 10,000 mutated inputs, 160 kills, and half an hour of soak.
bench-guard: .venv/test.installed
	$(BIN)/python benchmarks/guard_receive.py --write
	$(BIN)/python benchmarks/guard_checks.py
	$(BIN)/python benchmarks/guard_judge.py
	$(BIN)/python benchmarks/guard_deliver.py
	$(BIN)/python benchmarks/guard_volume.py
	$(BIN)/python benchmarks/guard_fuzz.py --count 10000
	$(BIN)/python benchmarks/guard_kill.py --times 20
	$(BIN)/python benchmarks/guard_soak.py --minutes 30 --rate 20

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Titer needs Python 3.11 or newer"; exit 2; }
	$(PYTHON) -m venv .venv

.venv/demo.installed: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/pip install --quiet -c constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet -c constraints.txt -e '.[imaging]'
	touch $@

.venv/test.installed: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/pip install --quiet -c constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@ .venv/demo.installed

.venv/bench.installed: .venv/test.installed benchmarks/requirements.txt
	$(BIN)/pip install --quiet -c constraints.txt -r benchmarks/requirements.txt
	$(BIN)/pip install --quiet --no-deps torchattacks==3.3.0
	touch $@

.venv-peers/installed: benchmarks/peers-requirements.txt benchmarks/peers-requirements-alone.txt constraints.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/pip install --quiet -c constraints.txt torch==2.13.0
	.venv-peers/bin/pip install --quiet -c constraints.txt -r benchmarks/peers-requirements.txt
	.venv-peers/bin/pip install --quiet --no-deps -r benchmarks/peers-requirements-alone.txt
	touch $@

clean:
	rm -rf .venv .venv-peers runs hardened .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
