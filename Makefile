# `make demo` and `make playground` need Python 3.10 or newer, `make test` a C compiler too.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.complete
# What only runs sgpud needs none of the tools for development: .venv where there is one, else one of its own.
RUN_VENV := $(if $(wildcard $(READY)),$(VENV),.venv-run)
RUN_READY := $(RUN_VENV)/.complete
SUITE := bookworm
ARCHES := amd64
PARALLEL := -n auto --dist loadgroup
PROTO := sgpud/kubelet/api
UV_COMPILE := uv pip compile --quiet --universal --python-version 3.10 --fork-strategy fewest \
	--generate-hashes --no-header --no-annotate --upgrade

.DEFAULT_GOAL := help
.PHONY: help venv kube demo playground demo-dra test test-debian test-browser soak gpu-check check format bench bench-debian bench-boot build-dep deb test-boot autopkgtest piuparts image release test-image proto pins clean
.DELETE_ON_ERROR:

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

venv: $(READY) ## create .venv from the pinned requirements, with sgpud in its bin

$(READY): tools/venv pyproject.toml requirements/build.txt requirements/dev.txt
	tools/venv $(VENV)

kube: $(READY) ## install kubectl and helm in .venv/bin, for the tests of deploy/
	@[ -x $(BIN)/helm ] || tools/kube $(VENV)

.venv-run/.complete: tools/venv pyproject.toml requirements/build.txt requirements/run.txt
	tools/venv .venv-run requirements/run.txt

demo: $(RUN_READY) ## show sgpud with fake GPUs and a stand-in kubelet
	$(RUN_VENV)/bin/python -m sgpud.testing.demo

playground: $(RUN_READY) ## play pods on fake GPUs until Ctrl-C; the page is http://127.0.0.1:9449/
	@$(RUN_VENV)/bin/python -m sgpud.testing.playground $(PLAY)

demo-dra: $(RUN_READY) ## the same as a driver of Dynamic Resource Allocation, with a stand-in API server
	$(RUN_VENV)/bin/python -m sgpud.testing.dra_demo

test: $(READY) ## run the whole test suite (TESTS="-m 'not slow'" for the edit loop)
	$(BIN)/python -m pytest $(PARALLEL) -m "not browser" $(TESTS)

test-debian: $(READY) ## run the suite on Debian 12's own packages (as root)
	tools/debian-stack python3 -m pytest $(PARALLEL) -m "not long and not browser" --ignore=tests/deploy --ignore=tests/image $(TESTS)

test-browser: $(READY) ## test the page in headless Chromium; screenshots go to build/screenshots
	SGPUD_ARTEFACTS=build/screenshots $(BIN)/python -m pytest -m browser tests/browser

soak: $(READY) ## run pods, reloads, kubelet restarts and kills for 10 minutes, watched by a checker (SOAK="--seconds 60")
	$(BIN)/python -m tests.abuse.soak $(SOAK)

gpu-check: $(READY) ## check what needs a real GPU, and report it for docs/hardware.md (as root)
	$(BIN)/python -m sgpud.testing.gpu_check $(GPU_CHECK)

check: $(READY) ## check style, types and imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## format the code
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

bench: $(READY) ## run the benchmarks
	$(BIN)/python -m benchmarks $(BENCH)

bench-debian: $(READY) ## run the benchmarks on Debian 12's packages (as root)
	tools/debian-stack python3 -m benchmarks $(BENCH)

bench-boot: $(READY) ## measure how soon a booting node has its shares (as root, after `make deb`)
	$(BIN)/python -m benchmarks.boot $(BENCH)

build-dep: ## install what `make deb` needs on a clean Debian or Ubuntu (as root)
	apt-get update
	apt-get install --yes --no-install-recommends dpkg-dev gcc libc6-dev python3-dev python3-venv
	apt-get build-dep --yes ./

deb: $(READY) ## build the Debian package in dist/ (on Debian or Ubuntu)
	tools/deb

test-boot: $(READY) ## test the package of `make deb` under a real systemd (as root; SUITE=trixie)
	SGPUD_BOOT=$(SUITE) $(BIN)/python -m pytest tests/boot $(TESTS)

autopkgtest: ## run debian/tests on the package of `make deb` (as root; SUITE=trixie)
	tools/autopkgtest $(SUITE)

piuparts: ## run piuparts on the package of `make deb` (as root; SUITE=trixie)
	tools/piuparts $(SUITE)

image: ## build the image from the package of `make deb` (IMAGE=NAME, BASE=..., ARCH=arm64, see tools/image)
	tools/image $(IMAGE)

release: $(READY) ## build a release in dist/: packages, chart, image, SBOMs, SHA256SUMS (as root; ARCHES="amd64 arm64")
	$(BIN)/python -m tools.release --images "$(ARCHES)"

test-image: $(READY) ## build the image and test it as the manifests run it (as root)
	tools/test-image $(TESTS)

proto: ## regenerate the messages of the kubelet's APIs (protoc 3.21.12)
	@protoc --version | grep -qx 'libprotoc 3.21.12' || \
		{ echo "protoc 3.21.12 is needed: newer ones write code that older runtimes refuse" >&2; exit 1; }
	protoc --python_out=. --pyi_out=. $(PROTO)/*.proto

pins: ## update the pinned requirements, for Python 3.10 (needs uv)
	$(UV_COMPILE) --output-file requirements/build.txt requirements/build.in
	$(UV_COMPILE) --output-file requirements/debian.txt requirements/debian.in
	$(UV_COMPILE) --output-file requirements/package.txt requirements/package.in
	$(UV_COMPILE) --output-file requirements/dev.txt pyproject.toml requirements/dev.in
	$(UV_COMPILE) --constraint requirements/dev.txt --output-file requirements/run.txt pyproject.toml

clean: ## remove everything that make created
	rm -rf $(VENV) .venv-run build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
