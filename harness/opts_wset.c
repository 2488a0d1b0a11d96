/* SPDX-License-Identifier: Apache-2.0 */
/* opts_wset.c: the options --working-set, --sample-pages and --sample-period. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "harness/opts.h"

int opts_parse_seconds(const char *s, uint64_t *ns)
{
	uint64_t v = 0, unit = OB_NS_PER_SEC;
	bool digits = false, point = false;

	for (; *s; s++) {
		if (*s == '.' && !point) {
			point = true;
			continue;
		}
		if (*s < '0' || *s > '9')
			return -EINVAL;
		digits = true;
		/* What is less than a nanosecond does not count. */
		if (point)
			unit /= 10;
		if (point ? __builtin_add_overflow(v, (uint64_t)(*s - '0') * unit, &v)
			  : __builtin_mul_overflow(v, 10, &v) ||
				    __builtin_add_overflow(v, (uint64_t)(*s - '0') * unit, &v))
			return -ERANGE;
	}
	if (!digits)
		return -EINVAL;
	*ns = v;
	return 0;
}

int opts_wset_together(struct fleet_config *c, const struct opts_given *given, struct ob_err *e)
{
	double seconds = (double)c->wset.period_ns / OB_NS_PER_SEC;

	if (!given->working_set) {
		if (given->sample)
			return ob_fail(e, EINVAL,
				       "--sample-pages and --sample-period are about "
				       "sampling; they need --working-set");
		c->wset.samples = 0;
		return 0;
	}
	/* Taking the samples is spread over a tenth of a period at most. */
	if (1.1 * seconds > c->seconds)
		return ob_fail(e, EINVAL,
			       "--working-set: --seconds %u ends before the first sampling period "
			       "(%g s) does; give --seconds %.0f or more, or a shorter "
			       "--sample-period",
			       c->seconds, seconds, 1.1 * seconds + 1);
	return 0;
}

int opts_check_wset(const struct fleet_config *c, struct ob_err *e)
{
	struct ob_uffd_caps caps;
	struct ob_host h;
	int fd;

	if (!c->wset.samples)
		return 0;
	fd = ob_host_linux_init(&h, e);
	if (fd)
		return fd;
	fd = h.ops->uffd_open(&h, &caps);
	ob_host_linux_exit(&h);
	if (fd < 0)
		return ob_fail(
			e, -fd,
			"--working-set needs userfaultfd for faults of the kernel (%s): run as "
			"root, or sudo sysctl vm.unprivileged_userfaultfd=1, or sudo setfacl "
			"-m u:$USER:rw /dev/userfaultfd",
			strerror(-fd));
	close(fd);
	if (!caps.move && !caps.protect)
		return ob_fail(e, EOPNOTSUPP,
			       "--working-set: this kernel's userfaultfd can neither move nor "
			       "protect pages; Linux 5.7 is needed");
	return 0;
}
