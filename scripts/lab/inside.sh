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
	say "$name: $*"
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
	mkdir -p /out/fleet
	verifier &
	pid=$!
	run fleet $ob fleet --guest linux --guests "${lab_guests:-4}" --mem 96M --workload kv,filecache \
		--seconds "${lab_seconds:-15}" --live --sharing off,kernel,off,hash --ksm-cpu 0 \
		--max-pause 20000 --boot-timeout 300 --out /out/fleet --append "quiet $lab_append" || bad=1
	kill $pid
	say "ept verify: $(grep -c 'status 0' /out/fleet/verify.txt) times clean," \
		"$(grep -c 'status 1' /out/fleet/verify.txt) times not"
	grep -q 'hash.*: status 0' /out/fleet/verify.txt || { say "ept verify: never clean in mode hash"; bad=1; }
	! grep -q 'status 1' /out/fleet/verify.txt || bad=1
	ship fleet/verify.txt
	return $bad
}

# For looking around by hand.
task_shell() {
	setsid cttyhack sh
}

task_micro() {
	local bad=0
	run doctor $ob doctor || bad=1
	run compare-micro $ob compare --guests "${lab_guests:-4}" --mem 32M --workload kv,filecache,churn \
		--seconds 10 --out /out/compare-micro --sharing off,hash,kernel || bad=1
	return $bad
}

# As somebody who is not root, with /dev/kvm opened to all and faults of the kernel not served.
task_user() {
	local bad=0
	chmod 666 /dev/kvm
	mkdir -p /out/user && chown 1000 /out/user
	run doctor-user su -s /bin/sh user -c "$ob doctor" || bad=1
	run user su -s /bin/sh user -c "$ob compare --guests ${lab_guests:-4} --mem 32M \
		--workload kv,filecache,churn --seconds 10 --out /out/user --sharing off,hash" || bad=1
	return $bad
}

# The test binaries; lab_filter chooses.
task_tests() {
	local bad=0 t
	export OB_BUILD=/ob OB_REQUIRE_KVM=1
	cd /ob || return 1
	for t in ${lab_tests:-pure host kvm}; do
		run "tests-$t" "/ob/tests/$t" --verbose --jobs 1 --timeout "${lab_timeout:-60}" ${lab_filter:+--filter "$lab_filter"} || bad=1
	done
	return $bad
}
