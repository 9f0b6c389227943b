# Needs Python 3.11 or newer, git and make; everything else is installed into .venv.

PYTHONS := python3.13 python3.12 python3.11 python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)
READY := .venv/.ready

.PHONY: help app test test-checklist test-deploy lint lock snapshot clean

help:
	@echo "make app                    generate an app with the defaults and start it on the demo provider"
	@echo "make test                   lint, type-check and test; ARGS=\"-k answers\" goes to pytest"
	@echo "make test-checklist         put a generated app's checklist on trial: sabotage, a naive app"
	@echo "make test-deploy            deploy a generated app for real: Docker, started by the test if need be"
	@echo "make lint                   format-check, lint and type-check alone"
	@echo "make lock                   take newer versions of the tools into requirements-*.txt"
	@echo "make snapshot VERSION=x.y.z keep what is committed as a release, for the update tests"

app: $(READY)
	@copier copy --quiet --defaults --overwrite --vcs-ref HEAD \
		-d "on_call_name=$$(id -un) at $$(uname -n)" -d "on_call_contact=the terminal that ran make app" \
		. build/app
	@cd build/app && uv sync --quiet
	@echo "The app starts at http://127.0.0.1:$${PORT:-8000}; Ctrl-C ends it. Its files: build/app"
	@cd build/app && exec uv run --no-sync dev

test: lint
	pytest -n 2 --ignore=tests/deploy --ignore=tests/checklist $(ARGS)

test-checklist: $(READY)
	CHECKLIST_JOBS=2 pytest -n 2 tests/checklist $(ARGS)

test-deploy: $(READY)
	pytest tests/deploy $(ARGS)

lint: $(READY)
	ruff format --check .
	ruff check .
	mypy
	cd template && mypy

lock: $(READY)
	uv lock --upgrade
	uv export --quiet --no-header --no-annotate --only-group bootstrap --output-file requirements-uv.txt
	uv export --quiet --no-header --no-annotate --only-group dev --output-file requirements-dev.txt

snapshot: $(READY)
	python tests/releases/snapshot.py take $(VERSION)

clean:
	rm -rf .venv build

$(READY): requirements-uv.txt requirements-dev.txt
	@for python in $(PYTHONS); do \
		if $$python -c 'import sys; raise SystemExit(sys.version_info < (3, 11))' 2>/dev/null; then \
			$$python -m venv --clear .venv; exit; \
		fi; \
	done; echo "Python 3.11 or newer is needed: none of $(PYTHONS) is." >&2; exit 1
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.txt
	@uv pip sync --quiet --python .venv/bin/python --require-hashes requirements-dev.txt
	@touch $@
