# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=sh
# What is done inside the lab's outer machine; read by scripts/lab/init. A task is a function task_NAME;
# it leaves what is to come out in /out/RUN/, ships it, and returns 0 when it went well.

ob=/ob/overbook

# run NAME COMMAND...: its output in /out/NAME/log.txt, progress lines before and after, ended after
# $limit seconds.
limit=${lab_limit:-600}
run() {
	local name=$1 begin rc
	shift
	mkdir -p "/out/$name"
	begin=$(cut -d. -f1 /proc/uptime)
	say "$name: begun"
	echo "$*" >"/out/$name/command.txt"
	timeout -s INT -k 10 "$limit" "$@" >"/out/$name/log.txt" 2>&1 </dev/null
	rc=$?
	say "$name: status $rc after $(($(cut -d. -f1 /proc/uptime) - begin)) s"
	[ $rc = 0 ] || tail -n 30 "/out/$name/log.txt"
	ship "$name"
	return $rc
}

# Ask a fleet that runs, every now and then until it has ended, whether its map of pages and the kernel's
# agree. A difference is a failure; no answer (before it runs, and when it is about to end) is none.
verifier() {
	local mode rc times=0
	while sleep 7; do
		times=$((times + 1))
		[ $((times % 4)) != 0 ] || say "fleet: $(tail -n 1 /out/fleet/log.txt)"
		mode=$($ob ctl sharing 2>/dev/null | head -n 1) || continue
		$ob ept verify >/tmp/verify 2>&1
		rc=$?
		[ $rc = 2 ] && continue
		{ echo "== $mode: status $rc"; cat /tmp/verify; } >>/out/fleet/verify.txt
	done
}

# The real thing: Linux guests, started once, and switched through the modes while they run.
task_fleet() {
	local bad=0 pid
	[ "$lab_disk" != 1 ] || task_disk || { say "disk: not as it should be"; bad=1; }
	mkdir -p /out/fleet
	: >/out/fleet/verify.txt
	verifier &
	pid=$!
	# What merges (ksmd, our scanner) comes before what runs in the guests: one CPU is there for all.
	# shellcheck disable=SC2016
	run fleet sh -c 'renice -n 12 -p $$ && exec "$@"' nice $ob fleet --guest linux --guests "${lab_guests:-4}" --mem 96M --vcpus "${lab_vcpus:-1}" --workload kv,filecache \
		--seconds "${lab_seconds:-15}" --live --sharing off,kernel,off,hash --ksm-cpu 0 \
		--max-pause 20000 --boot-timeout 300 --out /out/fleet --append "quiet $lab_append" || bad=1
	kill $pid
	say "ept verify: $(grep -c 'status 0' /out/fleet/verify.txt) times clean," \
		"$(grep -c 'status 1' /out/fleet/verify.txt) times not"
	grep -q '^== hash: status 0' /out/fleet/verify.txt || { say "ept verify: never clean in mode hash"; bad=1; }
	! grep -q 'status 1' /out/fleet/verify.txt || bad=1
	guests_complain && bad=1
	[ ! -e /out/fleet/verify.txt ] || ship fleet/verify.txt
	return $bad
}

# Has a guest's kernel said that it found something wrong with itself? A warning is none (the emulated CPU makes
# one: "XSAVE consistency problem").
guests_complain() {
	local found
	found=$(grep -E -e 'BUG:|kernel BUG at|Oops|general protection| \[#[0-9]+\]|rcu.*stall|soft lockup' /out/fleet/console/* 2>/dev/null)
	[ -n "$found" ] || return 1
	say "fleet: a guest's kernel complained: $(echo "$found" | head -n 1 | tr -d '\r' | sed 's|^/out/||')"
}

# A guest that is not ours, with disks: Linux's own driver writes, flushes, reads back, and reboots in
# between. What it says that it wrote must then be in the file, out here.
task_disk() {
	local log=/out/disk/log.txt said
	dd if=/dev/zero of=/tmp/disk.img bs=1M count=16 2>/dev/null
	run disk $ob run --kernel /ob/linux/vmlinuz --initrd /ob/disk-initrd.img --mem 96M --vcpus 2 \
		--disk /tmp/disk.img:rw --disk /ob/guest.img --append quiet --boot-timeout 300 || return 1
	tr -d '\r' <$log | grep '^disk: ' | while read -r line; do say "$line"; done
	said=$(tr -d '\r' <$log | sed -n 's/^disk: kept over a reboot, //p')
	[ -n "$said" ] && [ "$(head -c 4194304 /tmp/disk.img | md5sum | cut -d' ' -f1)" = "$said" ]
}

# Guests that are no part of a fleet. No figures: do they boot and work? A kernel by its PVH entry, one
# larger than the smallest by ten, and one that reaches beyond the hole below 4 GiB; with two vCPUs.
task_big() {
	local bad=0
	big vmlinux 256M --kernel /ob/vmlinux --initrd /ob/linux/initrd.img || bad=1
	big 1G 1G || bad=1
	big 5G 5G || bad=1
	return $bad
}
big() {
	local name=big-$1 mem=$2 rc
	shift 2
	mkdir -p "/out/$name"
	run "$name" $ob run --guest linux --mem "$mem" --vcpus 2 --workload kv --seconds 10 --boot-timeout 400 --warm-timeout 1500 \
		--json "/out/$name/result.json" "$@"
	rc=$?
	grep -E '^(status|pages verified|mismatches|boot|guest)' "/out/$name/log.txt" |
		while read -r line; do say "$name: $line"; done
	return $rc
}

# For looking around by hand.
task_shell() {
	setsid cttyhack sh
}

task_micro() {
	local bad=0
	run doctor $ob doctor || bad=1
	run compare-micro $ob compare --guests "${lab_guests:-4}" --mem 32M --workload kv,filecache,churn \
		--seconds 10 --out /out/compare-micro --sharing off,hash,kernel --ksm-cpu 0 --max-pause 20000 || bad=1
	task_user || bad=1
	return $bad
}

# As somebody who is not root, with /dev/kvm opened to all and faults of the kernel not served.
task_user() {
	local bad=0
	chmod 666 /dev/kvm
	mkdir -p /out/user && chown 1000 /out/user
	run doctor-user su -s /bin/sh user -c "$ob doctor" || bad=1
	run user su -s /bin/sh user -c "$ob compare --guests ${lab_guests:-4} --mem 32M \
		--workload kv,filecache,churn --seconds 10 --out /out/user/out --sharing off,hash --ksm-cpu 0 \
		--max-pause 20000" || bad=1
	return $bad
}

# Those tests that are about the host's kernel and its KVM. (The others say the same anywhere, and some
# take their time from the wall or from a guest's CPU time, of which there is little in here.)
suites_pure='@(probe|track|take_pure|huge|walk)/*'
suites_host='@(agent|blk*|fake_host|huge|move|pages_host|probe|scan_host|take_host|zap)/*'
suites_kvm='@(vm|vm_memory|vm_walk|pc*|kvm_track|kvm_stats|take|probe|huge|merge_kvm|merge_guests)/*'

# The test binaries; lab_filter chooses among their tests.
task_tests() {
	local bad=0 t suites
	export OB_BUILD=/ob OB_REQUIRE_KVM=1
	cd /ob || return 1
	for t in ${lab_tests:-host kvm}; do
		eval "suites=\$suites_$t"
		run "tests-$t" "/ob/tests/$t" --verbose --jobs 1 --timeout 120 --filter "${lab_filter:-$suites}" || bad=1
		say "tests-$t: $(sed 's/\x1b\[[0-9;]*m//g' "/out/tests-$t/log.txt" | grep 'Synthesis: Tested' | tail -n 1)"
		grep -a '^\[FAIL\]' "/out/tests-$t/log.txt" | while read -r line; do say "$line"; done
	done
	return $bad
}
