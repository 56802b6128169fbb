# check.mk: everything that is checked in C. Included by the Makefile at the top, whose directory is the current one.
#
#   native-check   the C files without a warning under gcc, and under clang where there is one
#   c-test         tests/c/test_*.c with the address and undefined-behaviour sanitizers, tests/c/plain_*.c without
#   c-test-tsan    tests/c/tsan_*.c with the thread sanitizer
#   c-test-plain   what c-test runs, without sanitizers: for other kernels, where emulation makes everything slow
#   c-test-arm64   tests/c/test_*.c for aarch64, under qemu-user
#   fuzz           tests/fuzz/fuzz_*.c for T seconds each; needs clang
#
# Tests link against an archive of all native/*.c: the linker takes what a test needs, so none has a list to keep. A
# sanitizer needs addresses where it expects them, hence setarch -R.

NATIVE_C := $(wildcard native/*.c)
NATIVE_FLAGS := $(shell cat native/flags.txt) -Werror
CHECK_COMPILERS := gcc $(shell command -v clang >/dev/null && echo clang)
CHECK_BUILD := build/check
TEST_LIMIT_S := 300
T ?= 60

ASAN_FLAGS := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
TSAN_FLAGS := -fsanitize=thread -fno-omit-frame-pointer

C_TESTS := $(patsubst tests/c/%.c,%,$(wildcard tests/c/test_*.c))
PLAIN_TESTS := $(patsubst tests/c/%.c,%,$(wildcard tests/c/plain_*.c))
TSAN_TESTS := $(patsubst tests/c/%.c,%,$(wildcard tests/c/tsan_*.c))
C_TEST_PROGRAMS := $(C_TESTS:%=$(CHECK_BUILD)/asan/run/%) $(PLAIN_TESTS:%=$(CHECK_BUILD)/plain/run/%)
C_TEST_PLAIN_PROGRAMS := $(patsubst %,$(CHECK_BUILD)/plain/run/%,$(C_TESTS) $(PLAIN_TESTS))
ARM64_GUEST_PROGRAMS := $(PLAIN_TESTS:%=$(CHECK_BUILD)/aarch64/run/%)
TSAN_TEST_PROGRAMS := $(TSAN_TESTS:%=$(CHECK_BUILD)/tsan/run/%)
# qemu-user knows no bpf(), which test_steer is about, no error queues of sockets (IP_RECVERR), which test_udp_io is
# about, and no filters of system calls, which plain_guard is about: that one runs in the guest of `make test-arm64`.
ARM64_TESTS := $(filter-out test_steer test_udp_io,$(C_TESTS))
CROSS := aarch64-linux-gnu-gcc
FUZZERS := $(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/fuzz_*.c))

.PHONY: native-check c-test c-test-tsan c-test-plain c-test-arm64 fuzz
.DELETE_ON_ERROR:
.SECONDARY:

# ---- warnings ----

native-check: $(foreach compiler,$(CHECK_COMPILERS),$(NATIVE_C:native/%.c=$(CHECK_BUILD)/$(compiler)/%.o))

# ---- building ----

# Objects of native/, in a directory of their own. $(1): the directory, $(2): compiler, $(3): more flags
define objects
$(CHECK_BUILD)/$(1)/%.o: native/%.c native/flags.txt
	@mkdir -p $$(@D)
	@echo "$(1): $$<"
	@$(2) $(NATIVE_FLAGS) $(3) -MMD -MP -c $$< -o $$@
endef

# The same, an archive of them, and the programs made with it. $(4): a program's flags, $(5): its sources' directory
define programs
$(call objects,$(1),$(2),$(3))

$(CHECK_BUILD)/$(1)/native.a: $(NATIVE_C:native/%.c=$(CHECK_BUILD)/$(1)/%.o)
	@rm -f $$@
	@$(AR) rcs $$@ $$^

$(CHECK_BUILD)/$(1)/run/%: $(5)/%.c $(CHECK_BUILD)/$(1)/native.a
	@mkdir -p $$(@D)
	@echo "$(1): $$<"
	@$(2) $(NATIVE_FLAGS) $(4) -MMD -MP -MF $$@.d -MT $$@ -Inative $$< $(CHECK_BUILD)/$(1)/native.a -pthread -o $$@
endef

$(foreach compiler,$(CHECK_COMPILERS),$(eval $(call objects,$(compiler),$(compiler))))
$(eval $(call programs,asan,$(CC),$(ASAN_FLAGS),$(ASAN_FLAGS),tests/c))
$(eval $(call programs,plain,$(CC),,,tests/c))
$(eval $(call programs,tsan,$(CC),$(TSAN_FLAGS),$(TSAN_FLAGS),tests/c))
$(eval $(call programs,fuzz,clang,$(ASAN_FLAGS) -fsanitize=fuzzer-no-link,$(ASAN_FLAGS) -fsanitize=fuzzer,tests/fuzz))

-include $(wildcard $(CHECK_BUILD)/*/*.d $(CHECK_BUILD)/*/run/*.d)

# ---- running ----

# Runs every program given by the command $(2), whatever becomes of the others, and shows each one's last line, or all
# of it if it failed.
define run_all
@failed=; for program in $(1); do \
	printf '%s: ' "$${program##*/}"; \
	if timeout $(TEST_LIMIT_S) $(2) "$$program" >"$$program.log" 2>&1; then tail -n 1 "$$program.log"; \
	else echo "FAILED ($$?)"; cat "$$program.log"; failed=1; fi; \
done; [ -z "$$failed" ]
endef

c-test: $(C_TEST_PROGRAMS)
	$(call run_all,$^,setarch -R)

c-test-tsan: $(TSAN_TEST_PROGRAMS)
	$(call run_all,$^,setarch -R)

c-test-plain: $(C_TEST_PLAIN_PROGRAMS)
	$(call run_all,$^,setarch -R)

# The same programs for another processor, whose byte order is ours and whose vector unit and memory order are not.
# Static, so that qemu needs no aarch64 system to load from. No sanitizers: they want addresses that it does not give.
$(CHECK_BUILD)/aarch64/native.a: AR := aarch64-linux-gnu-ar
$(eval $(call programs,aarch64,$(CROSS),,-static,tests/c))

$(patsubst %,$(CHECK_BUILD)/aarch64/%,$(NATIVE_C:native/%.c=%.o) $(ARM64_TESTS:%=run/%) $(PLAIN_TESTS:%=run/%)): | arm64-packages

c-test-arm64: $(ARM64_TESTS:%=$(CHECK_BUILD)/aarch64/run/%)
	$(call run_all,$^,qemu-aarch64)

# The corpus is copied, so that what the fuzzer finds does not change the checkout. An input that broke something stays
# in the directory named.
fuzz: $(FUZZERS:%=$(CHECK_BUILD)/fuzz/run/%)
	@failed=; for program in $(FUZZERS:%=$(CHECK_BUILD)/fuzz/run/%); do \
		name=$${program##*/fuzz_}; \
		corpus=$(CHECK_BUILD)/fuzz/corpus/$$name; \
		found=$(CHECK_BUILD)/fuzz/found/$$name; \
		mkdir -p "$$corpus" "$$found" && cp tests/fuzz/corpus/$$name/* "$$corpus"; \
		if setarch -R "$$program" -max_total_time=$(T) -print_final_stats=1 -artifact_prefix="$$found/" \
			"$$corpus" >"$$program.log" 2>&1; then outcome='nothing found'; \
		else outcome="FAILED: see $$program.log and $$found/"; failed=1; tail -n 40 "$$program.log"; fi; \
		count=$$(sed -n 's/^stat::number_of_executed_units: *//p' "$$program.log"); \
		echo "fuzz_$$name: $${count:-?} executions in $(T) s, $$outcome"; \
	done; [ -z "$$failed" ]
