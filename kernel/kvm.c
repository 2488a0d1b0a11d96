/* SPDX-License-Identifier: Apache-2.0 */
/* kvm.c: opening KVM, and finding out how it maps guest memory. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernel/vcpu.h"
#include "kernel/vm.h"

#define CPUID_MAX 256

const char *kvm_mode_name(enum kvm_mode m)
{
	static const char *const name[] = {
		[KVM_MODE_UNKNOWN] = "unknown",
		[KVM_MODE_TDP] = "tdp",
		[KVM_MODE_SHADOW] = "shadow",
		[KVM_MODE_SOFTWARE] = "software",
	};

	return name[m];
}

static int read_module_flag(const char *path)
{
	FILE *f = fopen(path, "re");
	int c;

	if (!f)
		return -1;
	c = fgetc(f);
	fclose(f);
	return c == 'Y' || c == '1';
}

static bool cpu_has_virtualization(void)
{
	FILE *f = fopen("/proc/cpuinfo", "re");
	char line[8192];
	bool found = false;

	if (!f)
		return false;
	while (!found && fgets(line, sizeof(line), f))
		if (!strncmp(line, "flags", 5))
			found = strstr(line, " vmx ") || strstr(line, " svm ");
	fclose(f);
	return found;
}

enum kvm_mode kvm_mode_detect(void)
{
	int ept = read_module_flag("/sys/module/kvm_intel/parameters/ept");
	int npt = read_module_flag("/sys/module/kvm_amd/parameters/npt");

	if (access("/dev/kvm", F_OK))
		return KVM_MODE_UNKNOWN;
	if (ept == 1 || npt == 1)
		return KVM_MODE_TDP;
	if (ept == 0 || npt == 0)
		return KVM_MODE_SHADOW;
	/* /dev/kvm without either vendor's module, on a CPU that offers no virtualization. */
	return cpu_has_virtualization() ? KVM_MODE_UNKNOWN : KVM_MODE_SOFTWARE;
}

const char *kvm_access_advice(const char *path, char *buf, size_t n)
{
	char names[16384];
	struct group entry, *group = NULL;
	struct stat st;

	/* Joining a group helps only where the group may; nobody is to join root's. */
	if (stat(path, &st) == 0 && st.st_gid != 0 && (st.st_mode & 0060) == 0060)
		getgrgid_r(st.st_gid, &entry, names, sizeof(names), &group);
	if (group)
		snprintf(buf, n, "sudo usermod -aG %.60s $USER, then log in anew", group->gr_name);
	else
		snprintf(buf, n, "sudo setfacl -m u:$USER:rw %.150s", path);
	return buf;
}

/* The kick interrupts KVM_RUN; the handler itself has nothing to do (see vcpu.c). */
static void on_kick(int sig)
{
	(void)sig;
}

int kvm_open(struct kvm *k, struct ob_err *e)
{
	static const struct {
		int cap;
		const char *name;
	} need[] = {
		{KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"},
		{KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"},
		{KVM_CAP_SYNC_MMU, "KVM_CAP_SYNC_MMU"},
	};
	struct sigaction sa = {.sa_handler = on_kick};
	struct kvm_cpuid2 *cpuid;
	char advice[KVM_ADVICE_MAX];
	int r;

	*k = (struct kvm){.fd = open("/dev/kvm", O_RDWR | O_CLOEXEC)};
	if (k->fd < 0) {
		r = errno;
		if (r == ENOENT || r == ENXIO || r == ENODEV)
			return ob_fail(e, r,
				       "no /dev/kvm: load the kvm_intel or kvm_amd module, or turn "
				       "virtualization on in the firmware");
		if (r == EACCES || r == EPERM)
			return ob_fail(e, r, "no permission for /dev/kvm: %s, or run as root",
				       kvm_access_advice("/dev/kvm", advice, sizeof(advice)));
		return ob_fail(e, r, "cannot open /dev/kvm: %s", strerror(r));
	}
	r = ioctl(k->fd, KVM_GET_API_VERSION, 0);
	if (r != KVM_API_VERSION) {
		kvm_close(k);
		return ob_fail(e, ENOTSUP, "/dev/kvm has API version %d, need %d", r,
			       KVM_API_VERSION);
	}
	for (size_t i = 0; i < OB_ARRAY_SIZE(need); i++) {
		if (ioctl(k->fd, KVM_CHECK_EXTENSION, need[i].cap) > 0)
			continue;
		kvm_close(k);
		return ob_fail(e, ENOTSUP, "this KVM lacks %s", need[i].name);
	}
	r = ioctl(k->fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (r < (int)sizeof(struct kvm_run)) {
		kvm_close(k);
		return ob_fail(e, ENOTSUP, "KVM_GET_VCPU_MMAP_SIZE says %d", r);
	}
	k->run_size = (unsigned int)r;
	cpuid = calloc(1, sizeof(*cpuid) + CPUID_MAX * sizeof(cpuid->entries[0]));
	OB_ASSERT(cpuid);
	cpuid->nent = CPUID_MAX;
	if (ioctl(k->fd, KVM_GET_SUPPORTED_CPUID, cpuid)) {
		r = errno;
		free(cpuid);
		kvm_close(k);
		return ob_fail(e, r, "KVM_GET_SUPPORTED_CPUID: %s", strerror(r));
	}
	k->cpuid = cpuid;
	OB_ASSERT(!sigaction(VCPU_KICK_SIGNAL, &sa, NULL));
	return 0;
}

void kvm_close(struct kvm *k)
{
	free(k->cpuid);
	k->cpuid = NULL;
	if (k->fd >= 0)
		close(k->fd);
	k->fd = -1;
}
