/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_qemu.c: the reference: QEMU's microvm machine, as lean as it goes for a fair race.
 *
 * acpi=off makes it start through qboot, its smallest firmware (with ACPI it is SeaBIOS); option
 * ROMs, timer, interrupt controller and clock of a PC are left out, so what remains is what our VMs
 * have too: memory, a vCPU, virtio-mmio slots (QEMU's are empty) and a serial port. The firmware is
 * code in ring 0: on a KVM without hardware below it, it is emulated instruction by instruction,
 * and that is part of QEMU's time there. mem-merge=off keeps its memory away from Linux KSM. The
 * guest is the same ELF file, entered by the same PVH note; without an agent it prints a line and
 * halts.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/bench_demo.h"

#define QEMU "qemu-system-x86_64"
#define QEMU_MACHINE \
	"microvm,acpi=off,x-option-roms=off,pit=off,pic=off,rtc=off,isa-serial=on,mem-merge=off"

static bool find_in_path(const char *name, char *out, size_t n)
{
	const char *path = getenv("PATH");

	for (const char *p = path ? path : "/usr/bin"; p; p = strchr(p, ':')) {
		p += *p == ':';
		snprintf(out, n, "%.*s/%s", (int)strcspn(p, ":"), p, name);
		if (out[0] == '/' && access(out, X_OK) == 0)
			return true;
	}
	return false;
}

int demo_qemu_find(struct demo *d, struct ob_err *e)
{
	FILE *f;
	char version[24] = "";

	if (!find_in_path(QEMU, d->qemu, sizeof(d->qemu)))
		return ob_fail(e, ENOENT,
			       QEMU " is not there, which is the reference of this benchmark: "
				    "install it (apt-get install qemu-system-x86)");
	f = popen(QEMU " --version </dev/null 2>/dev/null", "re");
	if (!f)
		return ob_fail(e, errno, "cannot run " QEMU ": %s", strerror(errno));
	if (fscanf(f, "QEMU emulator version %23[0-9.]", version) != 1)
		version[0] = '\0';
	pclose(f);
	if (!version[0])
		return ob_fail(e, EIO, QEMU " --version does not say what it is");
	snprintf(d->peer, sizeof(d->peer), "QEMU %s microvm", version);
	return 0;
}

int demo_qemu_start(const struct demo *d, uint64_t mem, struct bench_child *c, uint64_t *started,
		    struct ob_err *e)
{
	char exe[PATH_MAX], kernel[PATH_MAX], size[32];
	char *argv[] = {exe,
			(char[]){"-M"},
			(char[]){QEMU_MACHINE},
			(char[]){"-accel"},
			(char[]){"kvm"},
			(char[]){"-cpu"},
			(char[]){"qemu64"},
			(char[]){"-m"},
			size,
			(char[]){"-nodefaults"},
			(char[]){"-no-user-config"},
			(char[]){"-display"},
			(char[]){"none"},
			(char[]){"-serial"},
			(char[]){"stdio"},
			(char[]){"-kernel"},
			kernel,
			NULL};

	snprintf(exe, sizeof(exe), "%s", d->qemu);
	snprintf(kernel, sizeof(kernel), "%s", d->files.kernel_path);
	snprintf(size, sizeof(size), "%lluk", (unsigned long long)(mem / OB_KIB));
	return bench_child_start(c, argv, d->cgroup.procs_fd, started, e);
}
