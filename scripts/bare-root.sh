#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Does it all work on a fresh Debian 12 with nothing but git, make and a shell? Builds such a root with
# debootstrap, clones what is committed here into it, and runs `make demo`, timed, and `make test`
# there. Needs root, debootstrap, some GB of space and a quarter of an hour.
# Usage: scripts/bare-root.sh [FOLDER]   (default: a temporary one, removed at the end)
set -eu
cd "$(dirname "$0")/.."

[ "$(id -u)" = 0 ] || { echo "bare-root.sh: needs root" >&2; exit 2; }
command -v debootstrap >/dev/null || { echo "bare-root.sh: apt-get install debootstrap" >&2; exit 2; }

# Mounts in a namespace of our own go with it, whatever happens.
if [ "${1:-}" != --inside ]; then
	keep=${1:-}
	root=${keep:-$(mktemp -d /var/tmp/overbook-root-XXXXXX)}
	status=0
	unshare --mount "$PWD/scripts/bare-root.sh" --inside "$root" || status=$?
	[ -n "$keep" ] || rm -rf --one-file-system "$root"
	exit $status
fi
root=$2

[ -e "$root/bin/sh" ] || debootstrap --variant=minbase --include=git,make,ca-certificates bookworm "$root" >"$root.log" 2>&1 || {
	tail -5 "$root.log" >&2
	exit 1
}
rm -f "$root.log"
cp /etc/resolv.conf "$root/etc/resolv.conf"
for m in proc sys dev dev/pts; do
	mount --bind "/$m" "$root/$m"
done
rm -rf "$root/root/overbook"
git clone -q . "$root/root/overbook"
inside() { chroot "$root" /bin/bash -c "cd /root/overbook && $1" </dev/null; }
inside 'scripts/setup.sh build && make -s all >/dev/null'
begin=$(date +%s)
inside 'make -s demo'
echo "make demo after the set-up: $(($(date +%s) - begin)) s"
inside 'make -s test'
