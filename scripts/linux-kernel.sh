#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Debian's cloud kernel, as a guest or the lab's outer kernel: fetched by apt with the sources of this
# system, unpacked, not installed; needs no root. What is there already is not fetched again.
#
#	linux-kernel.sh fetch VERSION               prints the folder: vmlinuz, config, release, modules/
#	linux-kernel.sh modules VERSION NAME...     prints the modules' files and all that they depend
#	                                            on, in load order (.ko or .ko.xz); what the kernel has
#	                                            built in is left out, a name that it lacks is an error
#
# VERSION is 6.1, 6.12, ...: what linux-image-cloud-amd64 is in this release, or else in its backports.
# The folder is $BUILD/linux/VERSION (BUILD: build). Exit status: 0, 1 it cannot be had, 2 bad usage.
set -eu

me=linux-kernel.sh
meta=linux-image-cloud-amd64

die() {
	status=$1
	shift
	echo "$me: $*" >&2
	exit "$status"
}

[ $# -ge 2 ] || die 2 "usage: $me fetch VERSION | $me modules VERSION NAME..."
verb=$1
version=$2
shift 2
# It becomes a path and a pattern, so it is looked at closely.
case $version in
*[!0-9.]* | *.*.* | .* | *. | 0*) bad=1 ;;
*.*) bad= ;;
*) bad=1 ;;
esac
[ -z "$bad" ] || die 2 "'$version' is no kernel version: give two numbers such as 6.1"
build=${BUILD:-build}
mkdir -p "$build/linux"
top=$(cd "$build/linux" && pwd)
dir=$top/$version

# --- fetching -------------------------------------------------------------------------------------

# apt with folders of our own. It reads the system's sources and keys, or only the file $apt/list.
apt=$top/.apt-$version
own_apt() {
	cmd=$1
	shift
	"$cmd" -q -o Dir::State="$apt/state" -o Dir::State::status=/dev/null -o Dir::Cache="$apt/cache" \
		-o Dir::Log="$apt" -o APT::Sandbox::User="$(id -un)" -o Debug::NoLocking=1 \
		$apt_sources "$@"
}
system_apt() {
	"$@"
}

# The package of the wanted version that the apt called $1 knows, if any.
candidate() {
	"$1" apt-cache depends "$meta" 2>/dev/null |
		sed -n "s/^ *Depends: \(linux-image-$version\.[0-9].*-cloud-amd64\)\$/\1/p" | head -n 1
}

update() {
	mkdir -p "$apt/state/lists/partial" "$apt/cache/archives/partial"
	# A source of somebody else that fails is not our concern: what counts is what is known then.
	own_apt apt-get update >"$apt/log" 2>&1 || true
}

# One-line and deb822 entries of this system's sources: "URI SUITE KEYRING" each, for its release.
system_entries() {
	cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null | awk -v suite="$1" '
		$1 == "deb" {
			key = ""
			n = 2
			if ($2 ~ /^\[/) {
				for (; n <= NF; n++) {
					if (match($n, /signed-by=[^] ]*/))
						key = substr($n, RSTART + 10, RLENGTH - 10)
					if ($n ~ /\]$/)
						break
				}
				n++
			}
			if ($(n + 1) == suite)
				print $n, suite, key
		}'
	cat /etc/apt/sources.list.d/*.sources 2>/dev/null | awk -v suite="$1" '
		function flush() {
			if ((" " suites " ") ~ (" " suite " ") && types ~ /deb( |$)/)
				print uri, suite, key
			uri = suites = key = types = ""
		}
		FNR == 1 || /^[ \t]*$/ { flush() }
		/^Types:/ { types = $2 " " $3 }
		/^URIs:/ { uri = $2 }
		/^Suites:/ { $1 = ""; suites = $0 }
		/^Signed-By:/ { key = $2 }
		END { flush() }'
}

backports_list() {
	codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
	system_entries "$codename" | while read -r uri suite key; do
		case $key in
		/*) echo "deb [signed-by=$key] $uri $suite-backports main" ;;
		*) echo "deb $uri $suite-backports main" ;;
		esac
	done | head -n 1
}

# Download with the apt called $1 into the current folder.
download() {
	"$1" apt-get download "$2" >"$apt/log" 2>&1
}

fetch_package() {
	apt_sources=""
	p=$(candidate system_apt)
	if [ -n "$p" ] && download system_apt "$p"; then
		return 0
	fi
	# Nothing known, another version, or the lists are too old: ask anew, into our own folder.
	update
	p=$(candidate own_apt)
	if [ -n "$p" ] && download own_apt "$p"; then
		return 0
	fi
	backports_list >"$apt/list"
	[ -s "$apt/list" ] || return 1
	apt_sources="-o Dir::Etc::sourcelist=$apt/list -o Dir::Etc::sourceparts=-"
	rm -rf "$apt/state/lists"
	update
	p=$(candidate own_apt)
	[ -n "$p" ] && download own_apt "$p"
}

fetch() {
	[ -s "$dir/release" ] && return 0
	command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
		die 1 "no apt-get or dpkg-deb: put vmlinuz, modules/ and release of a Debian cloud kernel into $dir"
	# Two at once (make linux beside make lab) would be in each other's folders.
	exec 8>"$top/.lock"
	flock 8
	[ -s "$dir/release" ] && return 0
	rm -rf "$dir" "$dir.new" "$apt"
	mkdir -p "$apt/deb"
	echo "fetching Debian's cloud kernel $version" >&2
	if ! (cd "$apt/deb" && fetch_package); then
		why=$(sed -n 's/^\(E: \|W: Failed to fetch \)//p' "$apt/log" 2>/dev/null | head -n 1)
		rm -rf "$apt"
		die 1 "no cloud kernel $version in this system's package sources or their backports${why:+ ($why)}"
	fi
	dpkg-deb -x "$apt"/deb/*.deb "$apt/root"
	tree=$apt/root/lib/modules
	[ -d "$tree" ] || tree=$apt/root/usr/lib/modules
	release=$(ls "$tree")
	mkdir -p "$dir.new"
	mv "$tree/$release" "$dir.new/modules"
	mv "$apt/root/boot/vmlinuz-$release" "$dir.new/vmlinuz"
	mv "$apt/root/boot/config-$release" "$dir.new/config"
	echo "$release" >"$dir.new/release"
	mv "$dir.new" "$dir"
	rm -rf "$apt"
}

# --- modules --------------------------------------------------------------------------------------
# The package has no modules.dep (depmod writes it where the package is installed), but each module
# names what it needs in its section .modinfo.

# The file of module $1, with - and _ alike; nothing when there is none.
module_file() {
	pattern=$(echo "$1" | sed 's/[-_]/[-_]/g')
	find "$dir/modules/" -name "$pattern.ko" -o -name "$pattern.ko.xz" | head -n 1
}

builtin() {
	pattern=$(echo "$1" | sed 's/[-_]/[-_]/g')
	grep -q "/$pattern\.ko\$" "$dir/modules/modules.builtin"
}

module_depends() {
	case $1 in
	*.xz) xz -dc "$1" ;;
	*) cat "$1" ;;
	esac | tr '\0' '\n' | sed -n 's/^depends=//p' | head -n 1 | tr ',' ' '
}

# Print $1 after all that it needs; $seen are those that have been printed.
seen=" "
resolve() {
	case $seen in
	*" $1 "*) return 0 ;;
	esac
	seen="$seen$1 "
	builtin "$1" && return 0
	file=$(module_file "$1")
	[ -n "$file" ] || die 1 "kernel $version has no module $1"
	# Arguments keep $file and the rest of the list through the recursion.
	set -- "$file" $(module_depends "$file")
	while [ $# -gt 1 ]; do
		resolve "$2"
		file=$1
		shift 2
		set -- "$file" "$@"
	done
	echo "$1"
}

case $verb in
fetch)
	[ $# = 0 ] || die 2 "fetch takes nothing after the version"
	fetch
	echo "$dir"
	;;
modules)
	[ $# -gt 0 ] || die 2 "modules takes names of modules after the version"
	fetch
	for name; do
		resolve "$(echo "$name" | tr - _)"
	done
	;;
*) die 2 "unknown command '$verb' (fetch or modules)" ;;
esac
