/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pace.c: how fast Linux KSM is driven, by name, and what that means for its settings.
 *
 * "fastest" is as fast as it can be made: no sleep between batches, batches so large that their
 * number does not count, no advisor that would slow it down again, and zero pages merged with the
 * kernel's zero page, as our own engine does. (Nor are they larger than that: who changes KSM's settings
 * waits for the end of a batch, on a slow host for minutes if it were a million pages.) "sleep:MS" is
 * the same, but for a rest after each batch, which there is about a scan: what it costs can so be
 * compared at a chosen delay. "default" is what the kernel
 * starts with, and "advisor" its scan-time advisor with the bounds that the kernel starts with.
 *
 * Left as the host has them: max_page_sharing (it bounds the cost of reverse mapping, and cannot be
 * changed while anything is merged) and smart_scan (it saves time on pages that did not merge
 * before). merge_across_nodes is switched on where the kernel lets us: it refuses while anything is
 * merged.
 *
 * The order matters, since the advisor owns pages_to_scan: while it is on the kernel refuses to set
 * it, and switching it on or off sets it anew. So an advisor that is to be off goes off before, and
 * one that is to be on comes on after it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ksm/sysfs.h"

/* Batches that nobody but us asks for: what "fastest" and "sleep:MS" are known by. */
#define FASTEST_PAGES "10007"
#define SLEEP_PAGES   "1000001"

static const struct {
	const char *name;
	const char *value[KSM_NSETTINGS]; /* NULL: left as it is */
} paces[] = {
	[KSM_PACE_FASTEST] = {.name = "fastest",
			      .value = {[KSM_SET_MERGE_ACROSS_NODES] = "1",
					[KSM_SET_USE_ZERO_PAGES] = "1",
					[KSM_SET_SLEEP_MILLISECS] = "0",
					[KSM_SET_PAGES_TO_SCAN] = FASTEST_PAGES,
					[KSM_SET_ADVISOR_MODE] = "none",
					[KSM_SET_RUN] = "1"}},
	[KSM_PACE_DEFAULT] = {.name = "default",
			      .value = {[KSM_SET_MERGE_ACROSS_NODES] = "1",
					[KSM_SET_USE_ZERO_PAGES] = "0",
					[KSM_SET_SLEEP_MILLISECS] = "20",
					[KSM_SET_PAGES_TO_SCAN] = "100",
					[KSM_SET_ADVISOR_MODE] = "none",
					[KSM_SET_RUN] = "1"}},
	[KSM_PACE_ADVISOR] = {.name = "advisor",
			      .value = {[KSM_SET_MERGE_ACROSS_NODES] = "1",
					[KSM_SET_USE_ZERO_PAGES] = "0",
					[KSM_SET_SLEEP_MILLISECS] = "20",
					[KSM_SET_ADVISOR_MAX_CPU] = "70",
					[KSM_SET_ADVISOR_MIN_PAGES] = "500",
					[KSM_SET_ADVISOR_MAX_PAGES] = "30000",
					[KSM_SET_ADVISOR_TARGET] = "200",
					[KSM_SET_ADVISOR_MODE] = "scan-time",
					[KSM_SET_RUN] = "1"}},
	[KSM_PACE_SLEEP] = {.name = "sleep",
			    .value = {[KSM_SET_MERGE_ACROSS_NODES] = "1",
				      [KSM_SET_USE_ZERO_PAGES] = "1",
				      [KSM_SET_PAGES_TO_SCAN] = SLEEP_PAGES,
				      [KSM_SET_ADVISOR_MODE] = "none",
				      [KSM_SET_RUN] = "1"}},
};

int ksm_pace_parse(const char *s, struct ksm_pace *p)
{
	const char *digits = s + strlen("sleep:");
	unsigned long ms;

	for (unsigned int i = 0; i < KSM_PACE_SLEEP; i++)
		if (!strcmp(s, paces[i].name)) {
			*p = (struct ksm_pace){.kind = (enum ksm_pace_kind)i};
			return 0;
		}
	if (strncmp(s, "sleep:", strlen("sleep:")))
		return -EINVAL;
	if (!*digits || digits[strspn(digits, "0123456789")] || strlen(digits) > 9)
		return -EINVAL;
	ms = strtoul(digits, NULL, 10);
	if (ms > KSM_PACE_MAX_SLEEP)
		return -ERANGE;
	*p = (struct ksm_pace){.kind = KSM_PACE_SLEEP, .sleep_ms = (unsigned int)ms};
	return 0;
}

const char *ksm_pace_text(const struct ksm_pace *p, char buf[static KSM_PACE_TEXT])
{
	if (p->kind == KSM_PACE_SLEEP)
		snprintf(buf, KSM_PACE_TEXT, "sleep:%u", p->sleep_ms);
	else
		snprintf(buf, KSM_PACE_TEXT, "%s", paces[p->kind].name);
	return buf;
}

bool ksm_pace_equal(const struct ksm_pace *a, const struct ksm_pace *b)
{
	return a->kind == b->kind && (a->kind != KSM_PACE_SLEEP || a->sleep_ms == b->sleep_ms);
}

/* What @p asks of a kernel that has the settings of @have. */
static void pace_settings(const struct ksm_pace *p, const struct ksm_settings *have,
			  struct ksm_settings *want)
{
	memset(want, 0, sizeof(*want));
	for (unsigned int i = 0; i < KSM_NSETTINGS; i++)
		if (have->value[i][0] && paces[p->kind].value[i])
			strcpy(want->value[i], paces[p->kind].value[i]);
	if (p->kind == KSM_PACE_SLEEP)
		snprintf(want->value[KSM_SET_SLEEP_MILLISECS], KSM_VALUE_MAX, "%u", p->sleep_ms);
}

int ksm_settings_pace(const char *root, const struct ksm_settings *s, const struct ksm_pace *p,
		      struct ob_err *e)
{
	struct ksm_settings want;
	int r;

	if (p->kind == KSM_PACE_ADVISOR && !s->value[KSM_SET_ADVISOR_MODE][0])
		return ob_fail(e, ENOENT, "this kernel's KSM has no advisor: that is Linux 6.8");
	pace_settings(p, s, &want);
	/* Refused while anything is merged, by whomever; on most hosts it is on, or there is one
	 * node. */
	if (want.value[KSM_SET_MERGE_ACROSS_NODES][0]) {
		r = ksm_setting_put(root, KSM_SET_MERGE_ACROSS_NODES, "1", e);
		if (r && r != -EBUSY)
			return r;
		want.value[KSM_SET_MERGE_ACROSS_NODES][0] = '\0';
	}
	return ksm_settings_restore(root, &want, e);
}

bool ksm_settings_are_ours(const struct ksm_settings *s)
{
	const char *pages = s->value[KSM_SET_PAGES_TO_SCAN];

	return !strcmp(pages, SLEEP_PAGES) ||
	       (!strcmp(pages, FASTEST_PAGES) && !strcmp(s->value[KSM_SET_SLEEP_MILLISECS], "0"));
}
