# Needs Python 3.11 or newer, git and make; everything else is installed into .venv.

PYTHONS := python3.13 python3.12 python3.11 python3
export PATH := $(CURDIR)/.venv/bin:$(PATH)
READY := .venv/.ready

.PHONY: help app test test-apps test-checklist test-fire test-deploy deploy-engine deploy-rest screenshots bench lint lock files snapshot clean

help:
	@echo "make app                    generate an app with the defaults and start it on the demo provider"
	@echo "make test                   lint, type-check and test; ARGS=\"-k answers\" goes to pytest"
	@echo "make test-apps              install, lint, type-check and test four more apps: other answers, stores, Pythons"
	@echo "make test-checklist         put a generated app's checklist on trial: sabotage, a naive app"
	@echo "make test-fire              kill, freeze and cut off each store under a running app; minutes"
	@echo "make test-deploy            deploy generated apps for real: Docker, Vercel's runtime, Lambda's emulator"
	@echo "make screenshots            take the documentation's screenshots anew, where a page looks different now"
	@echo "make bench                  measure everything (25 minutes); STORES=sqlite KEYS=1000000 say what"
	@echo "make lint                   format-check, lint and type-check alone"
	@echo "make lock                   take newer versions of the tools into requirements-*.txt"
	@echo "make files                  list anew which files an app has: after adding or removing one"
	@echo "make snapshot VERSION=x.y.z keep what is committed as a release, for the update tests"

app: $(READY)
	@copier copy --quiet --defaults --overwrite --vcs-ref HEAD \
		-d "on_call_name=$$(id -un) at $$(uname -n)" -d "on_call_contact=the terminal that ran make app" \
		. build/app
	@cd build/app && uv sync --quiet
	@echo "The app starts at http://127.0.0.1:$${PORT:-8000}; Ctrl-C ends it. Its files: build/app"
	@cd build/app && exec uv run --no-sync dev

test: lint
	pytest -n 3 --dist worksteal -m "not apps" --ignore=tests/deploy --ignore=tests/checklist $(ARGS)

# Three at once: an app's tests mostly wait. (Without worksteal a worker keeps two of the four.)
test-apps: $(READY)
	pytest -n 3 --dist worksteal -m apps tests/test_apps.py $(ARGS)

test-checklist: $(READY)
	CHECKLIST_JOBS=2 pytest -n 2 tests/checklist $(ARGS)

# The stores side by side: a run of one mostly waits, for leases and time limits.
test-fire: $(READY)
	pytest -n 2 tests/test_stores.py $(ARGS)

# What needs Docker's engine in one process, the rest in another: both mostly wait.
test-deploy: $(READY)
	$(if $(ARGS),pytest tests/deploy $(ARGS),$(MAKE) --jobs=2 --keep-going --output-sync=target deploy-engine deploy-rest)

deploy-engine:
	pytest tests/deploy -m engine

deploy-rest:
	pytest tests/deploy -m "not engine"

# The browser tests take them, and fail where docs/images has others.
screenshots: $(READY)
	pytest tests/deploy/test_browser_screenshots.py --renew-screenshots
	@git status --short docs/images

STORES := sqlite,redis,postgres
KEYS := 100000

# Each says what it measures at its top; benchmarks/README.md has the numbers. One that misses a
# target fails at the end, after the others have run.
bench: $(READY)
	@failed=; \
	for command in "copy_speed.py" "update_speed.py" "import_cost.py" "cold_start.py" "deploy_cost.py" \
		"request_cost.py --stores $(STORES)" safeguard_cost.py evidence_cost.py "slo_cost.py --stores $(STORES)" \
		"store_step.py --stores $(STORES)" "store_growth.py --stores $(STORES) --keys $(KEYS)"; do \
		echo; echo "== $$command"; python benchmarks/$$command || failed="$$failed $${command%% *}"; \
	done; \
	test -z "$$failed" || { echo "missed a target:$$failed" >&2; exit 1; }

lint: $(READY)
	ruff format --check .
	ruff check .
	mypy
	cd template && mypy

lock: $(READY)
	uv lock --upgrade
	uv export --quiet --no-header --no-annotate --only-group bootstrap --output-file requirements-uv.txt
	uv export --quiet --no-header --no-annotate --only-group dev --output-file requirements-dev.txt
	for name in aws checkov; do \
		uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-header \
			--no-annotate tests/deploy/tools/$$name.in --output-file tests/deploy/tools/$$name.txt; \
	done

files: $(READY)
	python tests/manifest.py

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
