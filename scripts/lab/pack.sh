#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Pack the root of the lab's outer machine: an initramfs, not compressed, for the emulated CPU would
# take longer to unpack it than to read it. Usage: pack.sh MODULES OUT FILE=PATH...
# MODULES is a folder of .ko files with a list `order`; each FILE (of this host) is put at PATH, and the
# libraries that it needs beside the places where they are here.
set -eu
cd "$(dirname "$0")/../.."

modules=$1 out=$2
shift 2
root=$(mktemp -d "$(dirname "$out")/root-XXXXXX")
trap 'rm -rf "$root"' EXIT

mkdir -p "$root"/{bin,lab,lib/modules,etc,ob}
cp /bin/busybox "$root/bin/busybox"
ln -s busybox "$root/bin/sh"
cp scripts/lab/init "$root/init"
cp scripts/lab/inside.sh "$root/lab/"
cp "$modules"/*.ko "$modules/order" "$root/lib/modules/"
printf 'root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/tmp:/bin/sh\n' >"$root/etc/passwd"
printf 'root:x:0:\nuser:x:1000:\n' >"$root/etc/group"

for f in "$@"; do
	from=${f%%=*} to=$root/${f#*=}
	mkdir -p "$(dirname "$to")"
	cp -L "$from" "$to"
	# ldd says for what is no dynamic program that it is none.
	for l in $(ldd "$from" 2>/dev/null | sed -n 's/.*\(=> \|^\t\)\(\/[^ ]*\) (.*/\2/p'); do
		[ -e "$root$l" ] || { mkdir -p "$root$(dirname "$l")" && cp -L "$l" "$root$l"; }
	done
done
# The folder itself is the root of all, and mktemp makes it for one alone.
chmod 755 "$root" "$root/init"
(cd "$root" && find . | cpio -o -H newc --quiet) >"$out.new"
mv "$out.new" "$out"
