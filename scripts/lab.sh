#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The lab: Overbook on hardware KVM, on a machine that has none. QEMU's TCG emulates a CPU with SVM; a Debian
# kernel runs on it, with its KVM on nested paging (npt=1) or on shadow paging (npt=0); and in that
# our fleets run, of Linux guests that nobody has modified. Results come out into results/lab-<time>/.
#
#	lab.sh run       4 Linux guests, npt=1 and npt=0; sharing is switched live: off, kernel, off, hash
#	lab.sh smoke     2 guests, npt=1, shorter
#	lab.sh big       a vmlinux by its PVH entry, a guest of 1 GiB and one of 5 GiB, with 2 vCPUs each
#	lab.sh full      8 guests, on both outer kernels; without KASLR besides; the tests
#	lab.sh tests     our test binaries on older kernels (LAB_TESTS="pure host kvm" LAB_FILTER=glob)
#	lab.sh micro     doctor and a comparison, with the microguest, as root and as nobody in particular
#	lab.sh shell     a shell in the outer machine
#
# What to change, in the environment: LINUX_KERNEL (6.1), what the guests run; LAB_KERNEL, what the outer
# machine runs (6.12, 6.1, both; or a folder with vmlinuz, modules/ and release); LAB_NPT (1, 0, both);
# LAB_CPUS and LAB_MEM (MiB) of the outer machine; LAB_GUESTS; LAB_SECONDS of each mode; LAB_LIMIT
# (seconds for one outer machine, a second try of it included). Nothing is written but in build/ (what is
# built, linux/, lab/) and results/; packages that are missing are installed; no process stays.
# Exit status: 0 all well, 1 something was wrong, 2 bad usage.
set -u
cd "$(dirname "$0")/.."

build=${BUILD:-build}
lab=$build/lab
what=${1:-run}
cpus=${LAB_CPUS:-1}
npts=${LAB_NPT:-both}
guests=${LAB_GUESTS:-4}
seconds=${LAB_SECONDS:-30}
limit=${LAB_LIMIT:-470}
mem=${LAB_MEM:-} # what the guests need, when it is not given
kernels=${LAB_KERNEL:-default}
guest=${LINUX_KERNEL:-6.1}

die() {
	local status=$1
	shift
	echo "lab: $*" >&2
	exit "$status"
}
say() { printf 'lab %4d s  %s\n' "$SECONDS" "$*"; }

number() { # NAME VALUE LOW HIGH
	[[ $2 =~ ^(0|[1-9][0-9]{0,5})$ ]] && [ "$2" -ge "$3" ] && [ "$2" -le "$4" ] ||
		die 2 "$1=$2: give a number from $3 to $4"
}

case $what in
run | micro | shell) ;;
tests) limit=${LAB_LIMIT:-1500} ;;
big) guests=1 npts=${LAB_NPT:-1} mem=${LAB_MEM:-7000} limit=${LAB_LIMIT:-1800} ;;
smoke) npts=${LAB_NPT:-1} guests=${LAB_GUESTS:-2} seconds=${LAB_SECONDS:-15} limit=${LAB_LIMIT:-230} ;;
full) guests=${LAB_GUESTS:-8} kernels=${LAB_KERNEL:-both} seconds=${LAB_SECONDS:-60} limit=${LAB_LIMIT:-2700} ;;
*) die 2 "'$what' is none of run, smoke, big, full, tests, micro, shell" ;;
esac
case $npts in
both) npts="1 0" ;;
0 | 1) ;;
*) die 2 "LAB_NPT=$npts: give 1, 0 or both" ;;
esac
number LAB_CPUS "$cpus" 1 16
number LAB_GUESTS "$guests" 1 64
number LAB_SECONDS "$seconds" 1 3600
number LAB_LIMIT "$limit" 60 86400
mem=${mem:-$((700 + guests * 160))}
number LAB_MEM "$mem" 256 262144

[[ $guest =~ ^[1-9][0-9]*\.[0-9]+$ ]] || die 2 "LINUX_KERNEL=$guest: give two numbers such as 6.1"
for k in $kernels; do
	case $k in
	default | both | [0-9]*.[0-9]*) ;;
	*/*)
		[ -s "$k/vmlinuz" ] && [ -s "$k/release" ] && [ -d "$k/modules" ] ||
			die 2 "LAB_KERNEL=$k: a folder with vmlinuz, release and modules/ is wanted"
		;;
	*) die 2 "LAB_KERNEL=$k: give 6.12, 6.1, both, or a folder" ;;
	esac
done

# --- what runs, and its end -------------------------------------------------------------------------

mkdir -p "$lab"
exec 9>"$lab/lock"
flock -n 9 || die 1 "another lab runs in $lab"
# What one left that was killed.
rm -rf "$lab"/work-* "$lab"/root-*
work=$(mktemp -d "$lab/work-XXXXXX") || exit 1
jobs=() # each a subshell that runs one outer machine
cleanup() {
	trap - EXIT INT TERM HUP
	if [ ${#jobs[@]} != 0 ]; then
		kill -TERM "${jobs[@]}" 2>/dev/null
		wait "${jobs[@]}" 2>/dev/null
	fi
	rm -rf "$work"
}
trap cleanup EXIT
trap 'cleanup; exit 130' INT TERM HUP

# --- the outer machine ------------------------------------------------------------------------------

# kernel VERB KERNEL [WORD...]: linux-kernel.sh for an outer kernel, by its version; a folder that a
# person gives goes by a name that looks like one.
kernel() {
	local verb=$1 version=$2 from=$build
	shift 2
	if [[ $version = */* ]]; then
		from=$work/own
		mkdir -p "$from/linux"
		ln -sfn "$(realpath "$version")" "$from/linux/99.0"
		version=99.0
	fi
	BUILD=$from scripts/linux-kernel.sh "$verb" "$version" "$@"
}

# image VERSION OUT: all that the outer machine needs, one initramfs.
image() {
	local version=$1 out=$2 f name wanted
	local files=("$build/overbook=/ob/overbook" "$build/microguest.elf=/ob/microguest.elf"
		"$lab/guest.img=/ob/guest.img" "$lab/disk-initrd.img=/ob/disk-initrd.img"
		"$build/linux/$guest/vmlinuz=/ob/linux/vmlinuz" "$build/linux/$guest/initrd.img=/ob/linux/initrd.img")
	mkdir -p "$work/modules"
	rm -f "$work"/modules/*
	wanted=$(kernel modules "$version" virtio_pci virtio_console kvm-amd) || return 1
	for f in $wanted; do
		name=$(basename "$f" .xz)
		case $f in
		*.xz) xz -dc "$f" >"$work/modules/$name" ;;
		*) cp "$f" "$work/modules/$name" ;;
		esac || return 1
		echo "$name" >>"$work/modules/order"
	done
	[ "$3" != big ] || files+=("$lab/vmlinux=/ob/vmlinux")
	if [ "$3" = tests ] || [ "$3" = full ]; then
		for f in pure host kvm; do
			files+=("$build/tests/$f=/ob/tests/$f")
		done
		files+=("$build/yardstick=/ob/yardstick")
	fi
	scripts/lab/pack.sh "$work/modules" "$out" "${files[@]}"
}

# outer NAME KERNEL NPT TASK [WORD...]: run it until it has switched itself off. What it has shipped is
# in $results/NAME then. More WORDs are for the kernel's command line, and so for what runs inside.
# In a subshell of its own: one machine each. One that stands still (it gives a sign of life every 20 s)
# is ended; the emulation itself may (docs/linux-guests.md), so there is a second try, and
# that is said. Both have LAB_LIMIT together.
outer() {
	local end=$((SECONDS + limit)) left needed=$((4 * seconds + 40)) status
	outer_once "$@"
	status=$?
	[ $status = 3 ] || return $status
	left=$((end - SECONDS))
	if [ $left -lt $needed ]; then
		say "$1: FAILED: it stood still, and of $limit s (LAB_LIMIT) $left are left, too few for a second try"
		return 1
	fi
	outer_once "$@"
	status=$?
	[ $status != 3 ] || say "$1: FAILED: it stood still a second time"
	return $status
}
# Until $end, the second in which it is to be done. 3: it stood still.
outer_once() {
	local name=$1 kernel=$2 npt=$3 task=$4 line mine=$work/$1 log=$lab/$1.log qemu dir=$results/$1
	local still=0 console=(-serial "file:$lab/$1.log") words="quiet" input=/dev/null vmlinuz
	shift 4
	[ "$task" != shell ] || { console=(-serial stdio) words="" input=/dev/stdin; }
	vmlinuz=$(kernel fetch "$kernel")/vmlinuz || return 1
	mkdir -p "$mine" && mkfifo "$mine/progress" "$mine/monitor.in" "$mine/monitor.out" || return 1
	: >"$log"
	exec 7<>"$mine/progress"
	# It is killed with us, whatever becomes of us. cmpxchg16b spoils the flags in QEMU 7.2 when an
	# interrupt comes right after it (then kernels die of a double fault), so there is none; and page
	# tables of five levels are slower to walk. An interrupt may be lost: with a periodic tick the next
	# one brings it along (docs/linux-guests.md).
	setpriv --pdeathsig KILL qemu-system-x86_64 -accel tcg,thread=multi -cpu max,-cx16,-la57 \
		-machine q35 -smp "$cpus" -m "$mem" -nodefaults -no-user-config -display none -no-reboot \
		-kernel "$vmlinuz" -initrd "$lab/outer-${kernel##*/}.img" \
		-append "console=ttyS0 $words panic=-1 idle=poll no_timer_check nohz=off highres=off mitigations=off nokaslr lab_npt=$npt lab_task=$task \
			lab_guests=$guests lab_seconds=$seconds lab_limit=$((end - SECONDS - 20)) $*" \
		"${console[@]}" -device virtio-serial-pci \
		-chardev "file,id=p,path=$mine/progress" -device virtserialport,chardev=p,name=progress \
		-chardev "file,id=r,path=$mine/results.tar" -device virtserialport,chardev=r,name=results \
		-chardev "pipe,id=m,path=$mine/monitor" -mon m \
		9>&- 7>&- 2>"$mine/qemu.err" <"$input" &
	qemu=$!
	# shellcheck disable=SC2064
	trap "kill -KILL $qemu 2>/dev/null; exit 1" TERM
	still=$SECONDS
	while :; do
		if IFS= read -r -t 1 -u 7 line; then
			# An empty line says that the machine lives, and nothing else.
			[ -z "$line" ] || say "$name: $line"
			still=$SECONDS
		elif ! kill -0 "$qemu" 2>/dev/null; then
			break
		elif [ $SECONDS -ge $end ]; then
			say "$name: not done after $limit s, and ended (LAB_LIMIT)"
			kill -KILL "$qemu"
			break
		elif [ "$task" != shell ] && [ $((SECONDS - still)) -ge 100 ]; then
			say "$name: NOTE the outer machine has stood still for 100 s, and is ended; its console and where \
it stood are in $log.still"
			{ cat "$log"; where_it_stands "$mine/monitor"; } >"$log.still" 2>&1
			kill -KILL "$qemu"
			still=-1
			break
		elif ! kill -0 $$ 2>/dev/null; then
			kill -KILL "$qemu" # the script is gone
			exit 1
		fi
	done
	wait "$qemu" 2>/dev/null
	exec 7<&-
	if [ $still = -1 ]; then
		rm -rf "$mine"
		return 3
	fi
	mkdir -p "$dir"
	# One archive after another; the last may be cut off.
	[ ! -s "$mine/results.tar" ] || tar -xif "$mine/results.tar" -C "$dir" --no-same-owner 2>/dev/null
	# The fleet's own folder is the run's.
	if [ -d "$dir/fleet" ]; then
		mv "$dir"/fleet/* "$dir" && rmdir "$dir/fleet"
	fi
	cp "$log" "$dir/outer-console.txt"
	if [ "$(cat "$dir/status" 2>/dev/null)" != 0 ]; then
		say "$name: FAILED; the end of its console ($log):"
		cat "$mine/qemu.err"
		tail -n 30 "$log" | sed 's/[^[:print:]\t]//g; s/^/    /'
		return 1
	fi
}

# where_it_stands PIPE: of a machine that does nothing, what its CPU does, by QEMU's monitor; three times,
# since a loop is told from a halt by what changes.
where_it_stands() {
	local i
	for i in 1 2 3; do
		printf '%s\n' "info registers" "info lapic" "info pic" 'x/12i $pc' 1<>"$1.in" # it never waits for a reader
		timeout 2 cat "$1.out" | sed -E '/^(FPR|[XYZ]MM)[0-9]/d'
	done
}

# start NAME ...: outer, beside the others that run, as many at a time as there are CPUs for.
bad=0
start() {
	while [ ${#jobs[@]} != 0 ] && [ $(((${#jobs[@]} + 1) * cpus)) -gt "$(nproc)" ]; do
		finish
	done
	outer "$@" &
	jobs+=($!)
}
# Wait for the one that was started first.
finish() {
	wait "${jobs[0]}" || bad=1
	jobs=("${jobs[@]:1}")
}
finish_all() {
	while [ ${#jobs[@]} != 0 ]; do
		finish
	done
}

# --- what is done -----------------------------------------------------------------------------------

scripts/setup.sh lab || exit 1
case $kernels in
both) kernels="6.12 6.1" ;;
default)
	kernels=6.12
	kernel fetch 6.12 >/dev/null 2>&1 || kernels=6.1
	;;
esac
# Before the guests' image is built: a kernel that is fetched anew takes what was built of it along.
for k in $kernels; do
	kernel fetch "$k" >/dev/null || die 1 "no outer kernel $k"
done
# Of the guests' kernel what is in its own folder: the default of this build is for people to choose (make linux).
goals="all $build/linux/$guest/initrd.img $build/labsum"
[ "$what" != tests ] && [ "$what" != full ] || goals="$goals tests"
# shellcheck disable=SC2086
make -s BUILD="$build" $goals || exit 1
scripts/linux-initrd.sh "$guest" scripts/lab/disk-init "$lab/disk-initrd.img" || exit 1
[ "$lab/guest.img" -nt "$build/mkimage" ] || "$build/mkimage" -o "$lab/guest.img" --mb 8 || exit 1
if [ "$what" = big ]; then
	# Each time: vmlinuz has the date of Debian's build, which says nothing.
	scripts/linux-vmlinux.sh "$build/linux/$guest/vmlinuz" "$lab/vmlinux" || exit 1
fi

results=results/lab-$(date +%Y%m%d-%H%M%S)
for k in $kernels; do
	d=$(kernel fetch "$k") || die 1 "no outer kernel $k"
	image "$k" "$lab/outer-${k##*/}.img" "$what" || die 1 "cannot pack the outer machine"
	say "outer machine packed: kernel $(cat "$d/release" 2>/dev/null || echo "$k"), \
$(du -m "$lab/outer-${k##*/}.img" | cut -f1) MiB"
done
summed=()
# fleet NAME KERNEL NPT LABEL [WORD...]: a fleet of Linux guests, and its place in the summary.
fleet() {
	local name=$1 kernel=$2 npt=$3 label=$4 mode=tdp
	shift 4
	[ "$npt" = 1 ] || mode=shadow
	start "$name" "$kernel" "$npt" fleet "$@"
	summed+=("$name=$results/$name/result.json:$mode$label")
}
for k in $kernels; do
	for npt in $npts; do
		name=${k##*/}-npt$npt
		case $what in
		# In the short one the guests have two vCPUs, and another guest tries its disks; it is too short for
		# Linux KSM to have finished for certain.
		smoke) fleet "$name" "$k" "$npt" :brief lab_vcpus=2 lab_disk=1 ;;
		run | full) fleet "$name" "$k" "$npt" "" ;;
		micro) start "$name" "$k" "$npt" micro ;;
		big) start "$name" "$k" "$npt" big ;;
		tests) start "$name" "$k" "$npt" tests ${LAB_TESTS:+"lab_tests=\"$LAB_TESTS\""} lab_filter="${LAB_FILTER:-}" ;;
		shell) outer "$name" "$k" "$npt" shell; exit ;;
		esac
	done
done
if [ "$what" = full ]; then
	k=${kernels%% *} npt=${npts%% *}
	fleet "${k##*/}-npt$npt-nokaslr" "$k" "$npt" :reference lab_append=nokaslr
	for k in $kernels; do
		start "${k##*/}-micro" "$k" "$npt" micro
	done
fi
finish_all
if [ ${#summed[@]} != 0 ]; then
	"$build/labsum" "${summed[@]}" >"$results/summary.txt" || bad=1
	cat "$results/summary.txt"
fi
if [ "$what" = full ]; then
	for k in $kernels; do
		start "${k##*/}-tests" "$k" "$npt" tests
	done
	finish_all
fi
say "results: $results"
exit $bad
