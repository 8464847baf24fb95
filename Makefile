# `make` lists what can be made. Everything happens in .venv (or $VENV) and below build/ and .cache/.

VENV ?= $(CURDIR)/.venv
export VENV
BIN := $(VENV)/bin

# What the installed package is made of: when one of these changes, the next target installs again.
SOURCES := pyproject.toml CMakeLists.txt tools/bootstrap \
	$(shell find src native -type f -not -name '*.pyc' -not -name '*.so' 2>/dev/null)
DEMO := $(VENV)/.installed-demo
DEV := $(VENV)/.installed-dev

# Keras and its backends have an environment of their own: together they are gigabytes.
KERAS_VENV ?= $(VENV)-keras
BACKENDS ?= jax

# Ray has one, too: it brings a hundred megabytes.
RAY_VENV ?= $(VENV)-ray
RAY := $(RAY_VENV)/bin/python

# The native self-test: the kernels and the thread pool without Python, for sanitizers and emulators.
SELFTEST = $(BIN)/cmake -S . -G Ninja -DCMAKE_MAKE_PROGRAM=$(BIN)/ninja -DSWANN_STANDALONE=ON
ARM64 ?= aarch64-linux-gnu

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help env demo cluster-demo test test-arm64 test-keras test-ray cluster lint format bench paper \
	parity trust sanitize sanitize-damage coverage clean

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | \
		while IFS='|' read -r name text; do printf '%-20s %s\n' "$$name" "$$text"; done

env: $(DEV) ## make .venv with swann and everything its development needs

$(DEMO): $(SOURCES)
	@tools/bootstrap '.[cli,plot]'
	@touch $@

$(DEV): $(SOURCES)
	@tools/bootstrap '.[cli,hdf5,plot,test,lint,coverage]'
	@touch $@ $(DEMO)

demo: $(DEMO) ## index 50,000 words and search them: recall, speed, a picture
	@$(BIN)/python examples/demo.py

test: $(DEV) ## run all tests (ARGS="-k name" to choose)
	$(BIN)/python -m pytest --durations=10 $(ARGS)

# no-fork: in a forked child that starts a thread, QEMU 7.2 fails an assertion of its own.
test-arm64: $(DEV) ## run the NEON kernels' self-test under emulation (cross compiler and qemu-user)
	@command -v $(ARM64)-g++ >/dev/null && command -v qemu-aarch64 >/dev/null || { \
		echo "needs $(ARM64)-g++ and qemu-aarch64 (Debian: g++-$(ARM64) qemu-user)"; exit 1; }
	$(SELFTEST) -B build/arm64 -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
		-DCMAKE_CXX_COMPILER=$(ARM64)-g++
	$(BIN)/cmake --build build/arm64
	qemu-aarch64 -L /usr/$(ARM64) build/arm64/swann_selftest no-fork

test-keras: ## run the Keras layer's tests (BACKENDS="jax torch tensorflow"; jax by default)
	VENV=$(KERAS_VENV) tools/bootstrap '.[keras,test]' $(BACKENDS)
	@for backend in $(BACKENDS); do echo "$$backend:"; \
		KERAS_BACKEND=$$backend $(KERAS_VENV)/bin/python -m pytest $(ARGS) tests/test_keras_rs.py \
			tests/test_scann_ops.py tests/test_doctests.py || exit 1; done

test-ray: ## run the distributed tests with workers that are actors of Ray
	VENV=$(RAY_VENV) tools/bootstrap '.[serve,test]'
	$(RAY) -m pytest $(ARGS) tests/test_distributed_ray.py

cluster-demo: ## a local Ray cluster: GloVe-100 in shards, a worker killed while it is searched
	VENV=$(RAY_VENV) tools/bootstrap '.[cli,serve,test]'
	$(RAY) examples/cluster_demo.py $(ARGS)

cluster: $(DEV) ## chaos, overhead and rolling of distributed searches, chaos of builds (long)
	$(BIN)/python -m benchmarks.cluster chaos --workers 3
	$(BIN)/python -m benchmarks.cluster rolling --workers 3
	$(BIN)/python -m benchmarks.cluster overhead
	$(BIN)/python -m benchmarks.cluster builds

lint: $(DEV) ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(DEV) ## let ruff format and fix what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(DEV) ## compare with scann, faiss and hnswlib on GloVe-100 (downloads, takes long)
	$(BIN)/python -m benchmarks run $(ARGS)

paper: $(DEV) ## the experiments of the ScaNN paper into docs/paper.md (an hour; ARGS="figure-3a")
	$(BIN)/python -m benchmarks.paper $(ARGS)

parity: $(DEV) ## run one program against scann and swann: both answers, case by case (ARGS=--quick)
	$(BIN)/python -m benchmarks.parity $(ARGS)

trust: $(DEV) ## crashes, damage, interrupts, forks, lack of memory, and other libraries' (ARGS=--short)
	$(BIN)/python -m benchmarks.trust $(ARGS)

# The module under test goes to a folder of its own, found before the one in the environment.
# SANITIZED: how Python runs with it. Leaks are not looked for: Python itself does not free all.
SANITIZED = PYTHONPATH=$(CURDIR)/build/asan-site PYTHONMALLOC=malloc \
	ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 \
	UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	LD_PRELOAD="$$(c++ -print-file-name=libasan.so) $$(c++ -print-file-name=libubsan.so)" $(BIN)/python
# What holds processes to little memory or time, which sanitizers take.
NOT_SANITIZED = --ignore tests/test_native_build.py \
	--deselect tests/test_public_names.py::test_import_is_fast \
	--deselect tests/test_building.py::test_a_build_from_a_file_holds_little_of_it \
	--deselect tests/test_updates_interrupted.py::test_out_of_memory_in_an_upsert
sanitize: export UBSAN_OPTIONS := halt_on_error=1:print_stacktrace=1
sanitize: $(DEV) build/asan-site ## the self-test under ASan+UBSan and TSan, then the tests under ASan+UBSan
	$(SELFTEST) -B build/asan -DSWANN_SANITIZE=address,undefined
	$(BIN)/cmake --build build/asan
	build/asan/swann_selftest
	SWANN_SIMD=scalar build/asan/swann_selftest
	SWANN_SIMD=emulated build/asan/swann_selftest
	$(SELFTEST) -B build/tsan -DSWANN_SANITIZE=thread
	$(BIN)/cmake --build build/tsan
	build/tsan/swann_selftest no-fork
	$(SANITIZED) -m pytest $(NOT_SANITIZED) $(ARGS)

sanitize-damage: $(DEV) build/asan-site ## damaged indexes under ASan+UBSan (ARGS="--n 20000 --seed 1")
	$(SANITIZED) -m benchmarks.trust damage $(or $(ARGS),--n 20000)

build/asan-site: $(SOURCES)
	rm -rf $@
	SKBUILD_BUILD_DIR=build/asan-module SKBUILD_CMAKE_DEFINE='SWANN_SANITIZE=address,undefined' \
		tools/bootstrap --no-deps --target $@ .
	touch $@

# The native code of build/coverage-site counts what runs; so does coverage.py for Python. Counts of the
# run before are deleted. Tests of time, of what is built, and of `benchmarks.trust` tell nothing new here.
# Where a time limit of another test is too short for this build, the report comes all the same.
COVERAGE_TESTS ?= tests --ignore tests/test_native_build.py --ignore tests/test_trust.py \
	--ignore tests/test_paper.py --ignore tests/test_benchmarks.py --ignore tests/test_examples.py \
	--deselect tests/test_public_names.py::test_import_is_fast \
	--deselect tests/test_building.py::test_ctrl_c_is_heard_within_200_ms \
	--deselect tests/test_building.py::test_ctrl_c_ends_a_native_call_of_seconds
coverage: export COVERAGE_FILE := $(CURDIR)/build/coverage-python
coverage: $(DEV) ## which lines and branches of native/ the tests run (half an hour), and of swann/index
	$(SELFTEST) -B build/coverage-selftest -DSWANN_COVERAGE=ON
	$(BIN)/cmake --build build/coverage-selftest
	rm -rf build/coverage-site
	SKBUILD_BUILD_DIR=build/coverage-module SKBUILD_CMAKE_DEFINE='SWANN_COVERAGE=ON' \
		tools/bootstrap --no-deps --target build/coverage-site .
	find build/coverage-* -name '*.gcda' -delete
	build/coverage-selftest/swann_selftest >build/coverage-levels
	SWANN_SIMD=scalar build/coverage-selftest/swann_selftest
	SWANN_SIMD=emulated build/coverage-selftest/swann_selftest
	@if command -v $(ARM64)-g++ >/dev/null && command -v qemu-aarch64 >/dev/null; then set -ex; \
		$(SELFTEST) -B build/coverage-arm64 -DSWANN_COVERAGE=ON -DCMAKE_SYSTEM_NAME=Linux \
			-DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER=$(ARM64)-g++; \
		$(BIN)/cmake --build build/coverage-arm64; \
		qemu-aarch64 -L /usr/$(ARM64) build/coverage-arm64/swann_selftest no-fork; \
	fi
	-PYTHONPATH=$(CURDIR)/build/coverage-site $(BIN)/python -m coverage run --branch \
		--source=$(CURDIR)/build/coverage-site/swann -m pytest $(COVERAGE_TESTS) $(ARGS)
	SWANN_SIMD=emulated PYTHONPATH=$(CURDIR)/build/coverage-site $(BIN)/python -m pytest \
		tests/test_rounded_rows.py tests/test_unpacked_codes.py
	$(BIN)/python -m coverage report --include='*/swann/index/*' --show-missing
	$(BIN)/python tools/coverage_report build/coverage-levels build/coverage-selftest \
		build/coverage-module $$(test ! -d build/coverage-arm64 || \
		echo build/coverage-arm64:$$(command -v $(ARM64)-gcov))

clean: ## remove the environment and everything built (keeps benchmark data)
	rm -rf $(VENV) $(KERAS_VENV) $(RAY_VENV) build dist .cache demo-out .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -not -path './benchmarks/.*' -prune -exec rm -rf {} +
