/* SPDX-License-Identifier: Apache-2.0 */
/*
 * transition.c: which changes of a page's state there are, and who may make them.
 *
 * This is the table of docs/page-states.md, line by line (a test holds one against the other). Every
 * change goes through ept_set, which asks here: a mechanism that does what it is not meant to do is
 * a bug of ours, and is stopped at once instead of being found as a wrong byte in a guest later.
 */
#include "ept/ept.h"

#define BY(actor) (1u << (actor))

static const uint8_t may[EPT_NSTATES][EPT_NSTATES] = {
	[EPT_UNTOUCHED] =
		{
			[EPT_ZERO] = BY(EPT_BY_KERNEL) | BY(EPT_BY_FAULT),
			[EPT_PRIVATE] = BY(EPT_BY_KERNEL) | BY(EPT_BY_FAULT),
			[EPT_BALLOONED] = BY(EPT_BY_BALLOON),
			[EPT_REMOTE] = BY(EPT_BY_TIER),
		},
	[EPT_ZERO] =
		{
			[EPT_PRIVATE] = BY(EPT_BY_KERNEL) | BY(EPT_BY_FAULT) | BY(EPT_BY_MERGE),
			[EPT_SHARED] = BY(EPT_BY_MERGE),
			[EPT_BALLOONED] = BY(EPT_BY_BALLOON),
		},
	[EPT_PRIVATE] =
		{
			[EPT_ZERO] = BY(EPT_BY_KERNEL) | BY(EPT_BY_MERGE),
			[EPT_SHARED] = BY(EPT_BY_MERGE),
			[EPT_COMPRESSED] = BY(EPT_BY_TIER),
			[EPT_SWAPPED] = BY(EPT_BY_TIER),
			[EPT_REMOTE] = BY(EPT_BY_TIER),
			[EPT_BALLOONED] = BY(EPT_BY_BALLOON),
		},
	[EPT_SHARED] =
		{
			[EPT_ZERO] = BY(EPT_BY_KERNEL),
			[EPT_PRIVATE] = BY(EPT_BY_KERNEL) | BY(EPT_BY_MERGE),
			[EPT_BALLOONED] = BY(EPT_BY_BALLOON),
		},
	[EPT_COMPRESSED] =
		{
			[EPT_PRIVATE] = BY(EPT_BY_FAULT),
			[EPT_SWAPPED] = BY(EPT_BY_TIER),
			[EPT_REMOTE] = BY(EPT_BY_TIER),
			[EPT_BALLOONED] = BY(EPT_BY_BALLOON),
		},
	[EPT_SWAPPED] =
		{
			[EPT_PRIVATE] = BY(EPT_BY_FAULT),
			[EPT_COMPRESSED] = BY(EPT_BY_TIER),
			[EPT_REMOTE] = BY(EPT_BY_TIER),
			[EPT_BALLOONED] = BY(EPT_BY_BALLOON),
		},
	[EPT_BALLOONED] =
		{
			[EPT_ZERO] = BY(EPT_BY_KERNEL) | BY(EPT_BY_FAULT) | BY(EPT_BY_BALLOON),
			[EPT_PRIVATE] = BY(EPT_BY_KERNEL) | BY(EPT_BY_FAULT),
		},
	[EPT_REMOTE] =
		{
			[EPT_PRIVATE] = BY(EPT_BY_FAULT),
			[EPT_BALLOONED] = BY(EPT_BY_BALLOON),
		},
};

bool ept_may(enum ept_state from, enum ept_state to, enum ept_actor a)
{
	if (from >= EPT_NSTATES || to >= EPT_NSTATES || a >= EPT_NACTORS)
		return false;
	return from == to || may[from][to] & BY(a);
}

const char *ept_actor_name(enum ept_actor a)
{
	static const char *const name[] = {
		[EPT_BY_KERNEL] = "kernel", [EPT_BY_MERGE] = "merge",	  [EPT_BY_FAULT] = "fault",
		[EPT_BY_TIER] = "tier",	    [EPT_BY_BALLOON] = "balloon",
	};

	OB_ASSERT(a < EPT_NACTORS);
	return name[a];
}
