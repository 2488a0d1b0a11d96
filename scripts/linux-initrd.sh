#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The initramfs of a Linux guest: the agent as /init, the kernel's modules that a guest may need, and
# busybox for a person who wants a shell. The same files give the same bytes. Needs no root.
#
#	linux-initrd.sh VERSION AGENT OUT        VERSION as in linux-kernel.sh
#
# Not compressed: in a guest whose instructions are slow, copying 4 MB takes less than unpacking 2.
set -eu

[ $# = 3 ] || {
	echo "usage: linux-initrd.sh VERSION AGENT OUT" >&2
	exit 2
}
for c in cpio xz; do
	command -v "$c" >/dev/null || {
		echo "linux-initrd.sh: no $c: install the packages cpio and xz-utils" >&2
		exit 1
	}
done
version=$1
agent=$2
out=$3
here=$(dirname "$0")
tmp=$(mktemp -d)
# What is whole takes the place of OUT at once: it is written beside it, on the same file system.
new=$out.new.$$
trap 'rm -rf "$tmp" "$new"' EXIT
# A shell that a signal ends does not come to the trap of its end.
trap 'exit 130' INT
trap 'exit 143' TERM HUP
root=$tmp/root
mkdir -p "$root/bin" "$root/dev" "$root/modules" "$root/proc" "$root/sys" "$root/sbin" "$root/tmp"

# Device, as workloads/linux/boot.c finds it, and the module that drives it. Those that the agent
# waits for come first.
devices="acpi:LNRO0005=virtio_mmio pci:0x1af4=virtio_pci virtio:0x0003=virtio_console
	virtio:0x0002=virtio_blk virtio:0x0004=virtio_rng virtio:0x0005=virtio_balloon"

for d in $devices; do
	files=$("$here/linux-kernel.sh" modules "$version" "${d#*=}")
	line=${d%%=*}
	for f in $files; do
		name=$(basename "$f" .xz)
		line="$line $name"
		[ -e "$root/modules/$name" ] && continue
		case $f in
		*.xz) xz -dc "$f" >"$root/modules/$name" ;;
		*) cp "$f" "$root/modules/$name" ;;
		esac
	done
	echo "$line"
done >"$root/modules/list"

# A busybox that needs no library: the system's, or the package's.
busybox=/bin/busybox
if [ ! -x "$busybox" ] || [ "$(dpkg-query -W -f='${db:Status-Status}' busybox-static 2>/dev/null)" != installed ]; then
	(cd "$tmp" && apt-get download -q busybox-static >log 2>&1 && dpkg-deb -x busybox-static_*.deb bb) || {
		echo "linux-initrd.sh: no busybox: install the package busybox-static" >&2
		exit 1
	}
	busybox=$tmp/bb/bin/busybox
fi
cp -L "$busybox" "$root/bin/busybox"
cp "$agent" "$root/init"
chmod 755 "$root/init" "$root/bin/busybox"
chmod 644 "$root"/modules/*
find "$root" -exec touch -h -d @0 {} +
(cd "$root" && find . | LC_ALL=C sort | cpio --quiet -o -H newc --reproducible --owner=0:0) >"$new"
mv "$new" "$out"
