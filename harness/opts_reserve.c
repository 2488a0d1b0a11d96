/* SPDX-License-Identifier: Apache-2.0 */
/* opts_reserve.c: the option --host-mem: a fleet that is to live in less memory than the host has. */
#include <errno.h>

#include "harness/opts.h"

int opts_take_host_mem(struct fleet_config *c, const char *arg, struct ob_err *e)
{
	uint64_t v = 0;
	int ret = opts_parse_size(arg, &v);

	if (ret == -EINVAL)
		return ob_fail(e, EINVAL,
			       "--host-mem '%.40s': not a size; give a whole number with K, M, G "
			       "or T, as in 4G",
			       arg);
	if (ret || v < OPTS_MIN_MEM || v > INT64_MAX)
		return ob_fail(e, ERANGE, "--host-mem %.40s: out of range; at least 8M", arg);
	c->host_mem_bytes = v;
	return 0;
}

int opts_together_host_mem(const struct fleet_config *c, struct ob_err *e)
{
	const struct ksm_engine_ops *hash = ksm_engine_find("hash");

	for (unsigned int i = 0; i < c->nsharing; i++)
		if (c->sharing[i] == hash)
			return 0;
	if (!c->host_mem_bytes)
		return 0;
	return ob_fail(e, EINVAL,
		       "--host-mem is what merged guests are to live in; it needs --sharing hash");
}
