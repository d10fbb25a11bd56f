# Makefile: the few commands that matter, each one short.
# Not here: flags, lists of files and of tests (meson.build, tools/run-tests).
# Read more: HACKING.md.

PREFIX ?= /usr/local
TIME ?= 60
POINTS ?= 2000
SEED ?= 1
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help build run test stress crash bench fuzz install clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## Build the command and the library in build/ (installs what the build needs, if anything is missing)
	@tools/deps.sh run
	@test -f build/build.ninja || out=$$(meson setup build --prefix=$(PREFIX)) || { echo "$$out"; exit 1; }
	@ninja -C build --quiet

run: build ## Build, then read a small encrypted volume: locked, unlocked, exported, checked; and write one
	@tools/demo build/cli/inlay

test: ## Every check; T="word ..." runs those whose name has a word (tools/run-tests --list names them)
	@tools/deps.sh test
	@tools/run-tests $(T)

stress: ## A million I/Os of eight threads, thousands of faults, the kernel's twin, the largest of everything; T=name picks one
	@tools/deps.sh test
	@tools/run-tests --stress $(T)

crash: ## Tens of thousands of crashes of volumes that are being written (POINTS for each of twelve kinds, SEED)
	@tools/deps.sh test
	@tools/run-tests --build gcc
	@build/tests/test_crash --points=$(POINTS) --seed=$(SEED)

bench: ## A table of speeds and of memory; B="word ..." picks rows; root and loop devices for most of them
	@tools/deps.sh bench
	@bench/run.py $(B)

fuzz: ## Fuzz every parser for TIME seconds each (60); T=name picks one
	@tools/deps.sh test
	@tools/run-tests --fuzz $(TIME) $(T)

install: build ## Install the command, the library, headers and the manual page (PREFIX, DESTDIR)
	@meson configure build -Dprefix=$(PREFIX)
	@DESTDIR="$(DESTDIR)" meson install -C build
	@test -n "$(DESTDIR)" || ldconfig

clean: ## Remove what was built
	rm -rf build build-asan build-tsan build-arm64 build-arm64-sysroot*
