# SPDX-License-Identifier: Apache-2.0
# Overbook. `make demo` and `make test` do everything on a fresh Debian 12; `make help` lists the rest.

.DEFAULT_GOAL := all
# Half a file, of a command that failed, is none.
.DELETE_ON_ERROR:

CC	?= gcc
BUILD	?= build
V	?= 0
Q	:= $(if $(filter 1,$(V)),,@)

ifeq ($(origin CC),default)
CC := gcc
endif

WARN	:= -Wall -Wextra -Wshadow -Wcast-qual -Wsign-compare -Wwrite-strings -Wstrict-prototypes \
	   -Wmissing-prototypes -Wold-style-definition -Wpointer-arith -Wformat=2 -Wundef \
	   -Wvla -Wimplicit-fallthrough -Werror
CFLAGS	?= -O2 -g
CPPFLAGS += -I. -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64
CSTD	:= -std=gnu17
LDLIBS	:= -ljansson -lhwloc -lpthread -lm
# Guests are built for the lowest common x86-64; the host side may dispatch at run time.
ifdef SAN
CFLAGS	+= -fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer
CPPFLAGS += -DOB_PLAIN_MALLOC -DOB_DEBUG
else
LDLIBS	+= -ljemalloc
endif

GIT_REV	:= $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
GIT_DIRTY := $(shell test -z "$$(git status --porcelain --untracked-files=no 2>/dev/null)" && echo 0 || echo 1)

# Criterion does not start under ThreadSanitizer (tests/plain/criterion/criterion.h). And gcc warns that
# a fence alone orders nothing that ThreadSanitizer can see.
ifeq ($(SAN),thread)
CPPFLAGS := -Itests/plain $(CPPFLAGS)
CFLAGS	+= $(if $(findstring clang,$(CC)),,-Wno-tsan)
# The stand-in compares what it is given, where Criterion's macros hide that from the compiler.
WARN	+= -Wno-sign-compare
CRITERION := $(BUILD)/tests/plain/plain.o
else
CRITERION := -lcriterion
endif

FOLDERS	:= kernel ept ksm balloon overcommit harness
LIBSRC	:= $(filter-out harness/main.c,$(wildcard $(addsuffix /*.c,$(FOLDERS))))
LIBOBJ	:= $(LIBSRC:%.c=$(BUILD)/%.o)
ALLSRC	:= $(wildcard $(addsuffix /*.[ch],$(FOLDERS)) workloads/*.[ch] workloads/*/*.[ch] tests/*.[ch] \
	   tests/*/*.[ch] tests/*/*/*.h)

# --- what people call -----------------------------------------------------------------------------

.PHONY: help demo test setup all clean format format-check
help:
	@echo 'make demo          install what is missing, build, boot 16 similar guests three times'
	@echo 'make test          install what is missing, build, run all tests (CI runs this)'
	@echo 'make lab           Linux guests on emulated hardware KVM, nested paging and shadow paging (8 minutes)'
	@echo 'make lab-full      the same with 8 guests, on two outer kernels, and the tests there (an hour)'
	@echo 'make bench-demo    start-up and idle cost beside QEMU, cost per operation (about 8 minutes)'
	@echo 'make bench-ksm     our merging beside Linux KSM, needs root (about an hour)'
	@echo 'make bench-ept     taking pages, answering faults, tracking, beside the bare system calls'
	@echo 'make               build only: build/overbook, build/microguest.elf, build/guest.img'
	@echo 'make linux         the build, and a Debian kernel and our initramfs for it (LINUX_KERNEL=6.1): build/linux/'
	@echo 'make format        lay out the code by .clang-format (format-check only looks)'
	@echo 'make clean         remove build/ (results/ stays)'
	@echo 'CC=clang, BUILD=dir, V=1, SAN=address,undefined or SAN=thread change how it is built.'

# The set-up comes first and alone: without a compiler nothing else can begin.
setup:
	@scripts/setup.sh build

demo: setup
	@$(MAKE) --no-print-directory all
	@$(BUILD)/overbook compare --guests 16 --mem 64M --workload kv,filecache,churn,idle

test:
	@scripts/setup.sh test
	@scripts/test.sh

format:
	clang-format -i $(ALLSRC)

format-check:
	@clang-format --dry-run --Werror $(ALLSRC)

clean:
	rm -rf $(BUILD)

all: $(BUILD)/overbook $(BUILD)/microguest.elf $(BUILD)/guest.img $(BUILD)/yardstick

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(CSTD) $(CPPFLAGS) $(CFLAGS) $(WARN) -MMD -MP -c $< -o $@

# The revision goes into one object only, so that a commit does not rebuild the world.
$(BUILD)/harness/result_host.o: CPPFLAGS += -DOB_GIT_REV='"$(GIT_REV)"' -DOB_GIT_DIRTY=$(GIT_DIRTY)
$(BUILD)/harness/result_host.o: $(BUILD)/git.stamp
$(BUILD)/git.stamp: FORCE
	@mkdir -p $(@D); echo '$(GIT_REV) $(GIT_DIRTY)' | cmp -s - $@ || echo '$(GIT_REV) $(GIT_DIRTY)' >$@
FORCE:

$(BUILD)/liboverbook.a: $(LIBOBJ)
	$(Q)rm -f $@ && ar rcs $@ $^

$(BUILD)/overbook: $(BUILD)/harness/main.o $(BUILD)/liboverbook.a
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) $^ $(LDLIBS) -o $@
	@echo "built $@"

# What the figures of bench-ept are held against: a program of its own, beside overbook.
$(BUILD)/yardstick: $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/yardstick/*.c)) $(BUILD)/liboverbook.a
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) $^ $(LDLIBS) -o $@
	@echo "built $@"

# What the lab's results say, and whether they hold what is promised (scripts/lab.sh).
$(BUILD)/labsum: $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/lab/*.c))
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) $^ -ljansson -o $@

# --- guests ---------------------------------------------------------------------------------------

GUESTCC	:= gcc
GUESTFLAGS := -std=gnu17 -O2 -ffreestanding -nostdlib -static -fno-pic -no-pie -mno-red-zone \
	   -mgeneral-regs-only -fno-stack-protector -fcf-protection=none -fno-asynchronous-unwind-tables \
	   -fno-tree-loop-distribute-patterns -mcmodel=small -Wl,--build-id=none -I.
GUESTWARN := $(filter-out -Wstrict-prototypes,$(WARN))
MGSRC	:= $(wildcard workloads/microguest/*.c workloads/microguest/*.S workloads/common/*.c)
MGHDR	:= $(wildcard workloads/microguest/*.h workloads/common/*.h workloads/*.h) kernel/agent_abi.h

$(BUILD)/microguest.elf: $(MGSRC) $(MGHDR) workloads/microguest/link.ld
	@mkdir -p $(@D)
	$(Q)$(GUESTCC) $(GUESTFLAGS) $(GUESTWARN) -T workloads/microguest/link.ld $(MGSRC) -o $@
	@echo "built $@"

$(BUILD)/mkimage: workloads/mkimage.c workloads/image.h
	@mkdir -p $(@D)
	$(Q)$(CC) $(CSTD) $(CPPFLAGS) $(CFLAGS) $(WARN) $< -o $@

$(BUILD)/guest.img: $(BUILD)/mkimage
	$(Q)$(BUILD)/mkimage -o $@
	@echo "built $@"

# --- Linux guests: docs/linux-guests.md ------------------------------------------------------------
# build/linux/VERSION/: Debian's cloud kernel (fetched once) and its initramfs; build/linux/vmlinuz and
# initrd.img are those of LINUX_KERNEL.

LINUX_KERNEL ?= 6.1
LINUX	:= $(BUILD)/linux
AGENTSRC := $(wildcard workloads/linux/*.c workloads/common/*.c)
AGENTOBJ := $(AGENTSRC:%.c=$(LINUX)/obj/%.o)
# In a guest there is nobody to read what a sanitizer finds, and a static program cannot have one.
AGENTFLAGS := -O2 -pthread

$(LINUX)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(CSTD) -I. -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 $(AGENTFLAGS) $(WARN) -MMD -MP -c $< -o $@

$(LINUX)/agent: $(AGENTOBJ)
	$(Q)$(CC) $(AGENTFLAGS) -static -s $^ -o $@
	@echo "built $@"

$(LINUX)/%/release: scripts/linux-kernel.sh
	$(Q)BUILD=$(BUILD) scripts/linux-kernel.sh fetch $* >/dev/null
	@touch $@

# It says that the folder is whole: without it, all would be fetched again.
.PRECIOUS: $(LINUX)/%/release

$(LINUX)/%/initrd.img: $(LINUX)/%/release $(LINUX)/agent scripts/linux-initrd.sh
	$(Q)BUILD=$(BUILD) scripts/linux-initrd.sh $* $(LINUX)/agent $@
	@echo "built $@"

# All that `overbook run --guest linux` needs, on a fresh system.
.PHONY: linux
linux:
	@scripts/setup.sh linux
	@$(MAKE) --no-print-directory all $(LINUX)/$(LINUX_KERNEL)/initrd.img
	$(Q)ln -sf $(LINUX_KERNEL)/vmlinuz $(LINUX_KERNEL)/initrd.img $(LINUX)/

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)

# --- tests ----------------------------------------------------------------------------------------
# Three classes by what they may do: pure (memory and libc only), host (memory system calls), kvm
# (boots guests). One binary each.

TESTHELP := $(filter-out $(wildcard tests/pure_*.c tests/host_*.c tests/kvm_*.c tests/fuzz_*.c),$(wildcard tests/*.c)) workloads/linux/kind.c

define test_class
$(BUILD)/tests/$(1): $(filter %.o,$(CRITERION)) $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/$(1)_*.c) $(TESTHELP)) $(BUILD)/liboverbook.a
	$$(Q)$$(CC) $$(CFLAGS) $$(LDFLAGS) $$^ $$(filter -l%,$$(CRITERION)) $$(LDLIBS) -o $$@
endef
$(foreach c,pure host kvm,$(eval $(call test_class,$(c))))

.PHONY: tests
tests: all $(BUILD)/labsum $(LINUX)/agent $(BUILD)/tests/pure $(BUILD)/tests/host $(BUILD)/tests/kvm

# The loaders, the virtqueue, the page walk and the control protocol under libFuzzer, with everything
# that they link to instrumented.
FUZZERS	:= $(patsubst tests/%.c,%,$(wildcard tests/fuzz_*.c))
FUZZFLAGS := -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -DOB_PLAIN_MALLOC
.PHONY: fuzzers
fuzzers: $(addprefix $(BUILD)/fuzz/,$(FUZZERS))
FUZZSRC_fuzz_qmp := harness/qmp.c harness/qmp_stream.c
$(BUILD)/fuzz/fuzz_qmp: $(FUZZSRC_fuzz_qmp) harness/qmp.h
$(BUILD)/fuzz/%: tests/%.c $(wildcard kernel/*.[ch] ept/*.[ch])
	@mkdir -p $(@D)
	$(Q)clang $(CSTD) $(filter-out -DOB_PLAIN_MALLOC,$(CPPFLAGS)) $(FUZZFLAGS) $(WARN) $< \
		$(wildcard kernel/*.c ept/*.c) $(FUZZSRC_$*) -lpthread -ljansson -o $@

# --- the lab --------------------------------------------------------------------------------------
# Linux guests on a KVM with hardware below it, on any machine: in QEMU's emulation (docs/linux-guests.md).

.PHONY: lab lab-full lab-smoke lab-big lab-micro lab-tests
lab:
	@scripts/lab.sh run
lab-full:
	@scripts/lab.sh full
lab-smoke:
	@scripts/lab.sh smoke
lab-big:
	@scripts/lab.sh big
lab-micro:
	@scripts/lab.sh micro
lab-tests:
	@scripts/lab.sh tests

# --- benchmarks -----------------------------------------------------------------------------------
# docs/benchmarks.md. Each writes results/bench/NAME.json and exits 1 when it could not measure.

.PHONY: bench-demo
bench-demo:
	scripts/setup.sh bench
	$(MAKE) all
	$(BUILD)/overbook bench demo

.PHONY: bench-ksm
bench-ksm:
	scripts/setup.sh build
	$(MAKE) all
	$(BUILD)/overbook bench ksm

.PHONY: bench-ept
bench-ept:
	scripts/setup.sh build
	$(MAKE) all
	$(BUILD)/overbook bench ept
