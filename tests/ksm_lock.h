/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ksm_lock.h: for tests that drive Linux KSM. There is one on the host, and two runs at once must
 * drive it at the same pace, so a test that wants another pace than the fastest wants to be alone.
 * Criterion gives each test a process of its own; the lock is let go when that ends.
 */
#ifndef OVERBOOK_TESTS_KSM_LOCK_H
#define OVERBOOK_TESTS_KSM_LOCK_H

#include <fcntl.h>
#include <stdbool.h>
#include <sys/file.h>
#include <unistd.h>

/* Can KSM be driven here? If so, wait until the other tests let us. */
static inline bool ksm_lock(bool alone)
{
	int fd;

	if (access("/sys/kernel/mm/ksm/run", W_OK))
		return false;
	fd = open("/tmp/overbook-test-ksm.lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	return fd >= 0 && !flock(fd, alone ? LOCK_EX : LOCK_SH);
}

#define NEED_KSM(alone)                                                                     \
	do {                                                                                \
		if (!ksm_lock(alone))                                                       \
			cr_skip_test("Linux KSM cannot be driven here (root, CONFIG_KSM)"); \
	} while (0)

#endif
