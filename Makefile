# A thin front to CMake and the scripts: every recipe is a line or two. `make help` lists the targets.
BUILD        ?= build
JOBS         ?= $(shell nproc)
PREFIX       ?= /usr/local
SECONDS_EACH ?= 60

MAKEFLAGS    += --no-print-directory

.PHONY: all help setup build demo test stress asan valgrind fuzz bench lint format install clean
all: build

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

setup: ## install what the build and a run need
	@sh vendor/setup.sh build run

build: setup ## build to build/farcall
	@cmake -S . -B $(BUILD) >$(BUILD).log 2>&1 || { cat $(BUILD).log; exit 1; }
	@cmake --build $(BUILD) -j $(JOBS)

demo: build ## build, then run the main job: examples/licenses.py on this machine
	@sh vendor/setup.sh test
	$(BUILD)/farcall run --max-calls 5000 -v examples/licenses.py

test: ## build, then run every test
	@sh vendor/setup.sh test
	@$(MAKE) --no-print-directory build
	@sh spec/run.sh $(BUILD)

stress: ## thread stress under the thread sanitizer
	@sh vendor/setup.sh build
	@sh spec/stress/run.sh

asan: ## the whole suite under the address and undefined-behaviour sanitizers
	@sh vendor/setup.sh build run test
	@cmake -S . -B build-asan -DSANITIZE=address,undefined -DCMAKE_BUILD_TYPE=Debug >/dev/null
	@cmake --build build-asan -j $(JOBS)
	@sh spec/run.sh build-asan

valgrind: build ## the core's specs under valgrind
	@sh vendor/setup.sh test
	@sh spec/valgrind.sh $(BUILD)

fuzz: ## every fuzz target for SECONDS_EACH seconds
	@sh vendor/setup.sh build fuzz
	@sh fuzz/run.sh $(SECONDS_EACH)

bench: build ## the side-by-side benchmarks
	@sh vendor/setup.sh bench
	@sh bench/run.sh $(BUILD)

lint: ## luacheck, clang-tidy, clang-format, shellcheck
	@sh vendor/setup.sh build lint
	@sh spec/lint.sh

format: ## lay the C code out
	@clang-format -i core/*.[ch] examples/*.c runner/*.[ch] fuzz/*.c bench/*.c

install: build ## install to PREFIX, /usr/local by default
	@cmake --install $(BUILD) --prefix $(PREFIX)

clean: ## remove the build folders
	@rm -rf build build-* build.log
