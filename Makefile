# A thin front to CMake and the scripts. `make help` lists the targets.
BUILD ?= build
JOBS  ?= $(shell nproc)

.PHONY: all help setup build demo test asan tsan valgrind bench lint format fuzz install clean
all: build

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

setup: ## install what the build and a run need (apt)
	@sh vendor/setup.sh build run

build: setup ## build to build/farcall
	@cmake -S . -B $(BUILD) -DSANITIZE=$(SANITIZE) >/dev/null
	@cmake --build $(BUILD) -j $(JOBS)

test: build ## run every test
	@sh vendor/setup.sh test
	@sh spec/run.sh $(BUILD)

install: build ## install to $(PREFIX), /usr/local by default
	@cmake --install $(BUILD) --prefix $(or $(PREFIX),/usr/local)

clean: ## remove the build folders
	@rm -rf build build-*
