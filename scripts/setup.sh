#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Install what the build and the tests need, and only what is missing. With root or sudo through
# apt; otherwise one line that names the packages. Usage: setup.sh [build|linux|test|bench|lab]
set -eu

build="gcc make libc6-dev libxxhash-dev libjansson-dev libhwloc-dev libjemalloc-dev gnuplot-nox"
# What the initrd of a Linux guest is made with.
linux="$build cpio xz-utils"
# What the lab runs in (scripts/lab.sh); the tests include a short one.
emu="qemu-system-x86 busybox-static cpio xz-utils lz4 zstd"
test="$build clang clang-format libclang-rt-14-dev libcriterion-dev acpica-tools $emu"
bench="$build qemu-system-x86"
lab="$build $emu"

case "${1:-build}" in
build) want=$build ;;
linux) want=$linux ;;
test) want=$test ;;
bench) want=$bench ;;
lab) want=$lab ;;
*)
	echo "setup.sh: unknown set '$1' (build, linux, test, bench or lab)" >&2
	exit 2
	;;
esac

missing=""
for p in $want; do
	s=$(dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null || true)
	[ "$s" = installed ] || missing="$missing $p"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ]; then
	as=""
elif command -v sudo >/dev/null 2>&1 && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
	as="sudo"
else
	echo "overbook: missing packages, install them with: sudo apt-get install$missing" >&2
	exit 1
fi

echo "installing:$missing"
log=$(mktemp)
# shellcheck disable=SC2086
if ! { $as apt-get update -qq &&
	DEBIAN_FRONTEND=noninteractive $as apt-get install -y -qq --no-install-recommends $missing; } >"$log" 2>&1; then
	tail -5 "$log" >&2
	rm -f "$log"
	echo "overbook: could not install:$missing" >&2
	exit 1
fi
rm -f "$log"
