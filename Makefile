# build      static release executables in out/linux-<arch>/lifecycle
# test       everything: unit, module and acceptance tests; LIFECYCLE=DIR has those of another build tested
# lint       format, clippy, documentation, licences and bans
# acceptance the black-box tests alone: make acceptance LIFECYCLE=DIR tests any lifecycle's executables
# demo       from source code to a running container; EXTENSION=1 adds an image extension (as root)
# bench      start-up, builds and their parts, memory, sizes; PEER=DIR sets another lifecycle beside ours
# bench-plots the same, drawn into docs/performance
# docs       the book of docs/ in out/book; reference makes its pages of the executables
# fuzz       what nobody would write, to everything that reads what others wrote: make fuzz [SECONDS=10] [SEED=1] [TARGETS=...]
# package    for each architecture the tgz that platforms take, and the lifecycle image: make package [ARCHES="amd64 arm64"]
# package-test  tests the packages that were made; those of other architectures with qemu
# package-check builds the packages twice, in two places, and compares them: make package-check [ARCHES=...] [PARTS=launcher]
#            AGAINST=out builds them once, and compares with what is there of the same architectures
# clean      removes out and target

MACHINE := $(shell uname -m)
ARCH := $(or $(patsubst x86_64,amd64,$(filter x86_64,$(MACHINE))),$(patsubst aarch64,arm64,$(filter aarch64,$(MACHINE))),$(MACHINE))
MUSL := $(filter $(MACHINE)-unknown-linux-musl,$(shell rustup target list --installed 2>/dev/null))
TARGET := $(or $(MUSL),$(MACHINE)-unknown-linux-gnu)
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
# Goes into the metadata of every app image, beside the version.
export LIFECYCLE_COMMIT ?= $(shell git rev-parse --short=12 HEAD 2>/dev/null)
# At fixed addresses: nothing to relocate before each start.
STATIC := RUSTFLAGS="-C target-feature=+crt-static -C relocation-model=static" cargo build --locked --target $(TARGET)

OUT := out/linux-$(ARCH)
LIFECYCLE ?= $(OUT)/lifecycle
PHASES := $(sort $(basename $(notdir $(wildcard cmd/src/bin/*.rs))) $(patsubst cmd/src/bin/%/main.rs,%,$(wildcard cmd/src/bin/*/main.rs)))
# The launcher goes into every app image, so it has a profile of its own that favours size, if Cargo.toml names one.
LAUNCHER_PROFILE := $(if $(shell grep -F '[profile.launcher]' Cargo.toml),launcher,release)

ARCHES ?= amd64 arm64 ppc64le s390x

.PHONY: build test lint acceptance demo bench bench-plots docs reference fuzz package package-test package-check clean tools

tools:
	@make/need.sh cc=gcc make=make /usr/include/stdlib.h=libc6-dev /usr/bin/python3=python3 $(if $(MUSL),musl-gcc=musl-tools) \
	  nasm=nasm autoconf=autoconf automake=automake libtoolize=libtool

build: tools
	$(STATIC) --release -p cmd --bins
	$(STATIC) --profile $(LAUNCHER_PROFILE) -p launcher
	@mkdir -p $(OUT)/lifecycle
	install $(PHASES:%=$(TARGET_DIR)/$(TARGET)/release/%) $(TARGET_DIR)/$(TARGET)/$(LAUNCHER_PROFILE)/launcher $(OUT)/lifecycle
	/usr/bin/python3 make/sbom.py $(TARGET) $(OUT)/lifecycle
	@ls -l $(OUT)/lifecycle

test: $(if $(filter command line,$(origin LIFECYCLE)),tools,build)
	make/test.sh $(abspath $(LIFECYCLE)) --workspace

acceptance: $(if $(filter command line,$(origin LIFECYCLE)),tools,build)
	make/test.sh $(abspath $(LIFECYCLE)) -p acceptance

lint: tools
	make/lint.sh

demo: $(if $(filter command line,$(origin LIFECYCLE)),tools,build)
	TARGET=$(TARGET) demo/run.sh $(LIFECYCLE) $(if $(EXTENSION),--extension)

bench: $(if $(filter command line,$(origin LIFECYCLE)),tools,build)
	TARGET=$(TARGET) bench/run.sh $(LIFECYCLE) $(PEER)

bench-plots: bench
	/usr/bin/python3 bench/plot.py out/bench/results.json docs

docs: reference
	make/book.sh

reference:
	WRITE_PAGES=1 cargo test --quiet --locked -p platform-api --test reference_pages

fuzz: tools
	SEED=$(SEED) make/fuzz.sh $(or $(SECONDS),10) $(TARGETS)

package: tools
	PARTS="$(PARTS)" make/package.sh $(ARCHES)

package-test:
	make/need.sh qemu-aarch64-static=qemu-user-static || true
	/usr/bin/python3 -B make/package_test.py out

package-check: tools
	PARTS="$(PARTS)" AGAINST="$(AGAINST)" make/package_check.sh $(ARCHES)

clean:
	rm -rf out
	cargo clean
