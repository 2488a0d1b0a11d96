#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The vmlinux that is packed in a bzImage, to boot it by its PVH entry. Needs no root.
#
#	linux-vmlinux.sh BZIMAGE OUT
#
# Where the packed kernel lies stands in the header, from boot protocol 2.08 on: payload_offset and
# payload_length, counted from the end of the setup sectors (Documentation/arch/x86/boot.rst). The kernel's
# build appends four bytes, the length unpacked, for all ways of packing but gzip, which ends with it anyhow.
set -eu

[ $# = 2 ] || {
	echo "usage: linux-vmlinux.sh BZIMAGE OUT" >&2
	exit 2
}
image=$1
out=$2

die() {
	echo "linux-vmlinux.sh: $*" >&2
	exit 1
}
field() { od -An -v -t "u$2" -j "$1" -N "$2" "$image" | tr -d ' \n'; } # OFFSET BYTES
payload() { tail -c "+$((begin + 1))" "$image" | head -c $((length - appended)); }

[ "$(od -An -c -j 514 -N 4 "$image" | tr -d ' \n')" = HdrS ] || die "$image: is no bzImage"
[ "$(field 518 2)" -ge 520 ] || die "$image: boot protocol older than 2.08"
setup=$(field 497 1)
[ "$setup" != 0 ] || setup=4
begin=$(((setup + 1) * 512 + $(field 584 4)))
length=$(field 588 4)
appended=4
case $(od -An -v -t x1 -j "$begin" -N 4 "$image" | tr -d ' \n') in
02214c18) tool=lz4 ;;
28b52ffd) tool=zstd ;;
fd377a58) tool=xz ;;
1f8b*) tool=gzip appended=0 ;;
425a68*) tool=bzip2 ;;
7f454c46) tool=cat appended=0 ;;
*) die "$image: packed in a way that this script does not know" ;;
esac
command -v $tool >/dev/null || die "no $tool: install the package $tool"
trap 'rm -f "$out.new"' EXIT
# A shell that a signal ends does not come to the trap of its end.
trap 'exit 130' INT
trap 'exit 143' TERM HUP
case $tool in
cat) payload >"$out.new" ;;
*) payload | $tool -dc >"$out.new" ;;
esac
[ "$(od -An -v -t x1 -N 4 "$out.new" | tr -d ' \n')" = 7f454c46 ] || die "$image: what is packed in it is no ELF file"
mv "$out.new" "$out"
