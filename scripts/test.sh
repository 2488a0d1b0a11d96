#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# All that is checked, in one command: layout, dependency direction, both compilers with the strict
# set of warnings, the three classes of tests, the same under AddressSanitizer and UBSan, those that
# are about threads under ThreadSanitizer, and the fuzz targets for a short while. Prints one line a
# step; ends with the sum of tests that ran.
set -u
cd "$(dirname "$0")/.."

jobs=$(nproc)
log=$(mktemp -d)
trap 'rm -rf "$log"' EXIT
passed=0 failed=0 skipped=0

say() { printf '%5d s  %-44s %s\n' "$SECONDS" "$1" "$2"; }

# remember NAME <WHAT: what failed is said where it happens, and again at the end: who reads a long log
# begins there.
remember() {
	local line
	while IFS= read -r line; do
		printf '  %s: %s\n' "$1" "$line"
	done >>"$log/failed"
}

# step NAME COMMAND...: run it, say how it went, show the end of its output when it failed; when it passed,
# what it remarked on (a line with NOTE): that it took a second try, say.
step() {
	local name=$1
	shift
	if "$@" >"$log/step" 2>&1; then
		say "$name" ok
		grep -aw NOTE "$log/step" | sed 's/^/  /'
	else
		say "$name" FAILED
		tail -40 "$log/step"
		tail -5 "$log/step" | remember "$name"
		failed=$((failed + 1))
		return 1
	fi
}

# tests NAME BINARY [ARGS...]: a Criterion binary. Counts from its closing line.
tests() {
	local name=$1 line t f c s rc
	shift
	"$@" --verbose --jobs "${tjobs:-$jobs}" >"$log/out" 2>&1
	rc=$?
	line=$(sed 's/\x1b\[[0-9;]*m//g' "$log/out" | grep 'Synthesis: Tested:' | tail -1)
	t=$(sed -n 's/.*Tested: *\([0-9]*\).*/\1/p' <<<"$line")
	f=$(sed -n 's/.*Failing: *\([0-9]*\).*/\1/p' <<<"$line")
	c=$(sed -n 's/.*Crashing: *\([0-9]*\).*/\1/p' <<<"$line")
	s=$(sed 's/\x1b\[[0-9;]*m//g' "$log/out" | grep '^\[SKIP\]' | grep -vc 'Test is disabled')
	if [ -z "$t" ]; then
		say "$name" "FAILED to run"
		tail -40 "$log/out"
		tail -5 "$log/out" | remember "$name"
		failed=$((failed + 1))
		return
	fi
	passed=$((passed + t - f - c))
	failed=$((failed + f + c))
	skipped=$((skipped + s))
	ran=$t
	say "$name" "$t run, $((f + c)) failed, $s skipped"
	if [ "$s" != 0 ]; then
		sed 's/\x1b\[[0-9;]*m//g' "$log/out" | grep '^\[SKIP\]' | grep -v 'Test is disabled' | sed 's/^/  /'
	fi
	if [ $((f + c)) = 0 ] && [ $rc != 0 ]; then
		# A sanitizer has something to say of the runner itself.
		failed=$((failed + 1))
		say "$name" "FAILED with status $rc"
		tail -40 "$log/out"
		echo "status $rc" | remember "$name"
	fi
	if [ $((f + c)) != 0 ]; then
		sed 's/\x1b\[[0-9;]*m//g' "$log/out" | grep -v -e '^\[RUN' -e '^\[PASS' | tail -60
		sed 's/\x1b\[[0-9;]*m//g' "$log/out" | grep -B4 '^\[FAIL\]' | grep -v -e '^\[RUN' -e '^\[PASS' |
			remember "$name"
	fi
}

# later NAME GOAL...: make them in build/NAME, some time; built NAME: wait until that is done.
later() {
	local name=$1 out=$log/built-$1
	shift
	[ "$name" = fuzz ] || set -- BUILD="build/$name" "$@"
	{
		printf 'make -s -j%d' "$jobs"
		printf ' %q' "$@"
		printf ' >%q 2>&1; echo $? >%q.rc\n' "$out" "$out"
	} >>"$log/later"
}
built() {
	while [ ! -s "$log/built-$1.rc" ] && kill -0 "$later"; do sleep 0.2; done
	cat "$log/built-$1"
	[ "$(cat "$log/built-$1.rc")" = 0 ]
}

# Folders may include from folders below only (docs/design.md).
arrows() {
	local bad=0
	check() { # FOLDER FORBIDDEN...
		local f=$1 t
		shift
		for t in "$@"; do
			if grep -nE "^#[[:space:]]*include \"$t/" "$f"/*.[ch] 2>/dev/null; then bad=1; fi
		done
	}
	check kernel ept ksm balloon overcommit harness
	check ept ksm balloon overcommit harness
	check ksm balloon overcommit harness
	check balloon ksm overcommit harness
	check overcommit harness
	return $bad
}

# Does that check see what it is there for? Each line of the first file is a call, of the second none.
seam_sees() {
	local dir planted found
	dir=$(mktemp -d)
	cat >"$dir/calls.c" <<-'END'
		p = mmap(NULL, n, PROT_READ, MAP_PRIVATE, fd, 0);
		munmap (p, n);
		if (!syscall(SYS_process_madvise, pidfd, v, 1, 4, 0))
		fd = syscall(__NR_memfd_create, "x", 0);
		r = ioctl(fd, UFFDIO_MOVE, &m); /* moves */
		f("mmap(", '"', /* "text */ madvise(p, n, 4));
		ioctl(vm, KVM_GET_DIRTY_LOG, &log);
		fd = open("/proc/self/pagemap", O_RDONLY);
		snprintf(path, sizeof(path), "/proc/%d/pagemap", pid);
		ioctl(fd, PAGEMAP_SCAN, &a);
		fallocate(fd, mode, off, len);
		hint = MADV_DONTNEED;
	END
	cat >"$dir/none.c" <<-'END'
		/* mmap(p) and madvise(p) of the kernel
		 * munmap(p), UFFDIO_MOVE */
		say("mmap(2) failed; see /dev/userfaultfd and /proc/self/pagemap \" mmap(");
		h->ops->map_frames(h, at, size); // munmap(p)
		my_mmap(p); x.mmap_count = 1; f('"'); UFFDIO = 1;
	END
	planted=$(wc -l <"$dir/calls.c")
	found=$(scripts/seam.sh "$dir/calls.c" | wc -l)
	echo "found $found of $planted"
	scripts/seam.sh "$dir/none.c"
	local clean=$?
	rm -r "$dir"
	[ "$found" = "$planted" ] && [ "$planted" = 12 ] && [ $clean = 0 ]
}

# As somebody who may not install anything, on a machine that has nothing: one line, all names in it. And what
# the lab needs is in it for the tests too, since they run the lab.
setup_names() {
	local dir out set status bad=0 as=()
	dir=$(mktemp -d)
	printf '#!/bin/sh\nexit 1\n' >"$dir/dpkg-query"
	printf '#!/bin/sh\nexit 1\n' >"$dir/sudo"
	chmod 755 "$dir" "$dir"/*
	[ "$(id -u)" != 0 ] || as=(setpriv --reuid=65534 --regid=65534 --clear-groups)
	for set in build linux test lab; do
		out=$("${as[@]}" env PATH="$dir:$PATH" sh -s "$set" <scripts/setup.sh 2>&1)
		status=$?
		echo "$out"
		[ $status = 1 ] && [ "$(wc -l <<<"$out")" = 1 ] || bad=1
		grep -q 'gcc.*libjansson-dev' <<<"$out" || bad=1
		tr ' ' '\n' <<<"${out##*apt-get install }" | sort >"$dir/$set"
	done
	comm -13 "$dir/test" "$dir/lab" | sed 's/^/for the lab, not for the tests: /' | tee "$dir/lacking"
	[ ! -s "$dir/lacking" ] || bad=1
	rm -rf "$dir"
	return $bad
}

# What a newcomer runs first: it ends well, with the table and both files.
demo() {
	local out
	out=$(make -s demo 2>&1) || {
		echo "$out"
		return 1
	}
	echo "$out"
	grep -q '^saved, net of metadata' <<<"$out" || return 1
	for f in $(sed -n 's/^result: //p; s/^report: //p' <<<"$out"); do
		[ -s "$f" ] || return 1
	done
	rm -r "$(dirname "$f")"
}

# Two Linux guests in the lab, on nested paging: that all holds is what its status says.
lab_smoke() {
	local out dir
	out=$(make -s lab-smoke 2>&1) || {
		echo "$out"
		return 1
	}
	echo "$out"
	dir=$(sed -n 's/^lab .* results: //p' <<<"$out")
	[ -s "$dir/summary.txt" ] && rm -r "$dir"
}

step "layout (.clang-format)" make -s format-check
step "includes point down" arrows
step "memory system calls in the host seam only" scripts/seam.sh
step "that check finds planted calls" seam_sees
step "set-up without root names the packages" setup_names
step "build with gcc" make -s -j"$jobs" CC=gcc tests || exit 1
export OB_BUILD=build
export LSAN_OPTIONS=suppressions=$PWD/tests/lsan.supp:print_suppressions=0
# The other builds go on beside the tests, most of which wait most of their time; they have what those
# leave of the CPUs (SCHED_IDLE).
later clang CC=clang build/clang/overbook build/clang/yardstick build/clang/tests/pure build/clang/tests/host \
	build/clang/tests/kvm build/clang/linux/agent
later asan SAN=address,undefined tests
later tsan SAN=thread build/tsan/tests/pure build/tsan/tests/host
later fuzz fuzzers
setsid chrt -i 0 bash "$log/later" &
later=$!
trap 'kill -- "-$later" 2>/dev/null; rm -rf "$log"' EXIT

tests "pure" build/tests/pure
tests "host" build/tests/host
kvm=$passed ran=0
[ -e /dev/kvm ] && export OB_REQUIRE_KVM=1
tjobs=1 tests "kvm" build/tests/kvm
if [ -e /dev/kvm ] && [ "$passed" -le "$kvm" ]; then
	say "kvm tests" "FAILED: /dev/kvm is there, and none ran"
	echo "none ran" | remember "kvm tests"
	failed=$((failed + 1))
fi
if [ -e /dev/kvm ]; then
	step "make demo" demo
fi
# Linux guests on a KVM with hardware below it, in QEMU's emulation: needs no /dev/kvm here.
step "make lab-smoke" lab_smoke
step "build with clang" built clang
tests "pure, clang" build/clang/tests/pure
step "build with gcc, ASan and UBSan" built asan
tests "pure, ASan and UBSan" build/asan/tests/pure
OB_BUILD=build/asan tests "host, ASan and UBSan" build/asan/tests/host
if [ -e /dev/kvm ]; then
	OB_BUILD=build/asan tjobs=1 tests "kvm, ASan and UBSan" build/asan/tests/kvm \
		--filter '@(vm|kvm_track|take|merge_)*/*'
fi
step "build with gcc, ThreadSanitizer" built tsan
# What is about threads (tests/plain stands in for Criterion). All of it would take ten minutes.
export TSAN_OPTIONS="suppressions=$PWD/tests/tsan.supp halt_on_error=1"
tests "pure, ThreadSanitizer" build/tsan/tests/pure --filter 'track/*' --filter 'ept/*' \
	--filter 'take_pure/*' --filter 'fault/*' --filter 'window/*' --filter 'staged/*' \
	--filter 'io_worker/*' --filter 'index_threads/*' --filter 'io_hint/a_thread*' \
	--filter 'console/*' --filter 'serial_irq/*'
tests "host, ThreadSanitizer" build/tsan/tests/host --filter 'take_host/*' --filter 'io_worker/*' \
	--filter 'huge/everything*'
step "build the fuzz targets" built fuzz
# One a CPU: each is one thread.
fuzz_one() { # TARGET
	local out
	out=$log/$(basename "$1").out
	"$1" -max_total_time="${FUZZ_SECONDS:-6}" -verbosity=0 -print_final_stats=0 \
		-artifact_prefix="$log/" >"$out" 2>&1 && return
	echo "$1:"
	tail -20 "$out"
	return 1
}
export log
export -f fuzz_one
fuzz_all() {
	printf '%s\0' build/fuzz/* | xargs -0 -n 1 -P "$jobs" bash -c 'fuzz_one "$1"' -
}
step "fuzz $(ls build/fuzz | wc -l) targets for ${FUZZ_SECONDS:-6} s each" fuzz_all

if [ -s "$log/failed" ]; then
	echo "what failed:"
	cat "$log/failed"
fi
echo "tests: $passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ]
