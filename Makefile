# `make demo` and `make test` need Python 3.10 or newer and a C compiler, nothing else.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.complete
SUITE := bookworm
PARALLEL := -n auto --dist loadgroup
PROTO := sgpud/kubelet/api
UV_COMPILE := uv pip compile --quiet --universal --python-version 3.10 --fork-strategy fewest \
	--generate-hashes --no-header --no-annotate --upgrade

.DEFAULT_GOAL := help
.PHONY: help venv kube demo test test-debian test-browser check format bench bench-debian bench-boot build-dep deb test-boot autopkgtest piuparts image test-image proto pins clean
.DELETE_ON_ERROR:

help: ## say what each target does
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

venv: $(READY) ## make .venv from the pinned requirements; it has sgpud in its bin

$(READY): tools/venv pyproject.toml requirements/build.txt requirements/dev.txt
	tools/venv $(VENV)

kube: $(READY) ## put kubectl and helm into .venv/bin, for the tests of deploy/
	@[ -x $(BIN)/helm ] || tools/kube $(VENV)

demo: $(READY) ## share fake GPUs with a stand-in kubelet and show it
	$(BIN)/python -m sgpud.testing.demo

test: $(READY) ## run the whole test suite (TESTS="-m 'not slow'" for the edit loop)
	$(BIN)/python -m pytest $(PARALLEL) -m "not browser" $(TESTS)

test-debian: $(READY) ## run the suite on Debian 12's own packages (as root)
	tools/debian-stack python3 -m pytest $(PARALLEL) -m "not long and not browser" --ignore=tests/deploy --ignore=tests/image $(TESTS)

test-browser: $(READY) ## look at the page in headless Chromium; pictures go to build/screenshots
	SGPUD_ARTEFACTS=build/screenshots $(BIN)/python -m pytest -m browser tests/browser

check: $(READY) ## check style, types and the direction of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## put the code in the one format
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

bench: $(READY) ## print the numbers: times, rates, memory, beside their floors
	$(BIN)/python -m benchmarks $(BENCH)

bench-debian: $(READY) ## print the numbers on Debian 12's own packages (as root)
	tools/debian-stack python3 -m benchmarks $(BENCH)

bench-boot: $(READY) ## print how soon a node that boots has its shares (as root, after `make deb`)
	$(BIN)/python -m benchmarks.boot $(BENCH)

build-dep: ## install what `make deb` needs on a clean Debian or Ubuntu (as root)
	apt-get update
	apt-get install --yes --no-install-recommends dpkg-dev gcc libc6-dev python3-dev python3-venv
	apt-get build-dep --yes ./

deb: $(READY) ## build the Debian package into dist/ (with Debian's tools)
	tools/deb

test-boot: $(READY) ## install, run, break and purge the package of `make deb` under a real systemd (as root; SUITE=trixie)
	SGPUD_BOOT=$(SUITE) $(BIN)/python -m pytest tests/boot $(TESTS)

autopkgtest: ## install the package of `make deb` by its dependencies and run debian/tests (as root; SUITE=trixie)
	tools/autopkgtest $(SUITE)

piuparts: ## see whether the package of `make deb` leaves or changes anything (as root; SUITE=trixie)
	tools/piuparts $(SUITE)

image: ## build the image of the package of `make deb` (IMAGE=NAME, BASE=... as tools/image says)
	tools/image $(IMAGE)

test-image: $(READY) ## build the image anew, run it as the manifests do, remove it (as root)
	tools/test-image $(TESTS)

proto: ## generate the messages of the kubelet's APIs anew (protoc 3.21.12)
	@protoc --version | grep -qx 'libprotoc 3.21.12' || \
		{ echo "protoc 3.21.12 is needed: newer ones write code that older runtimes refuse" >&2; exit 1; }
	protoc --python_out=. --pyi_out=. $(PROTO)/*.proto

pins: ## resolve the pinned requirements anew, on Python 3.10 (needs uv)
	$(UV_COMPILE) --output-file requirements/build.txt requirements/build.in
	$(UV_COMPILE) --output-file requirements/debian.txt requirements/debian.in
	$(UV_COMPILE) --output-file requirements/package.txt requirements/package.in
	$(UV_COMPILE) --output-file requirements/dev.txt pyproject.toml requirements/dev.in

clean: ## remove what make made
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
