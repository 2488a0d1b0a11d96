/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cell_switch.c: the cell's side of switching the sharing mode while its guests run.
 *
 * The coordinator asks for one thing after the other: the engine stops; what it has merged is taken
 * back, some milliseconds at a time; another engine takes its place, over the same guests; it starts.
 * All of it is done by the main thread, with no scanner there. After each piece the guests run for as
 * long as one of them stood still, so that no guest makes less than half of its way. The working set is
 * not sampled meanwhile: what is read here would look as if the guests had touched it.
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "harness/cell.h"
#include "harness/proto.h"

static void switching(struct cell *c, bool on)
{
	if (on == c->switching)
		return;
	cell_scan_hold(c);
	cell_wset_pause(c, on);
	cell_scan_release(c);
	c->switching = on;
}

void cell_switch_leave(struct cell *c)
{
	cell_scanner_stop(c);
	ksm_stop(c->ksm);
	switching(c, true);
}

/* {"ms": for so long}. {"more": is there something left, "pages", "zero_pages", "pause_max_ns"} */
json_t *cell_switch_unmerge(struct cell *c, const json_t *doc)
{
	const struct ob_host_ops *ops = c->host.ops;
	uint64_t until = ops->now_ns(&c->host) + proto_u64(doc, "ms") * OB_NS_PER_MS;
	int r = 1;

	while (r > 0 && ops->now_ns(&c->host) < until) {
		uint64_t paused = c->undo.pause_ns;
		struct timespec nap;

		r = ksm_unmerge_step(c->ksm, &c->undo);
		paused = c->undo.pause_ns - paused;
		nap = (struct timespec){.tv_sec = (time_t)(paused / OB_NS_PER_SEC),
					.tv_nsec = (long)(paused % OB_NS_PER_SEC)};
		/* A page is in use, and is looked at again in a while. */
		if (r > 0 && !paused && c->undo.rest_until > ops->now_ns(&c->host))
			nap.tv_nsec = OB_NS_PER_MS;
		if (r > 0 && (nap.tv_sec || nap.tv_nsec))
			nanosleep(&nap, NULL);
	}
	if (r < 0) {
		char line[160];

		snprintf(line, sizeof(line), "cell %u: taking back what is shared: %s", c->number,
			 strerror(-r));
		return json_pack("{s:s,s:I}", "error", line, "errno", (json_int_t)-r);
	}
	return json_pack("{s:b,s:I,s:I,s:I}", "more", r > 0, "pages", (json_int_t)c->undo.pages,
			 "zero_pages", (json_int_t)c->undo.zero_pages, "pause_max_ns",
			 (json_int_t)c->undo.pause_max_ns);
}

int cell_switch_engine(struct cell *c, const json_t *doc, struct ob_err *e)
{
	const struct ksm_engine_ops *engine = ksm_engine_find(proto_str(doc, "sharing"));
	int r;

	OB_ASSERT(engine);
	ksm_unmerge_end(c->ksm, &c->undo);
	for (unsigned int i = 0; i < c->nguests; i++)
		cell_guest_unmerged(c, &c->guest[i]);
	ksm_free(c->ksm);
	c->ksm = NULL;
	r = ksm_new(&c->ksm, engine, &c->host, c->domain, &c->ksm_opts, c->arena_ksm);
	for (unsigned int i = 0; i < c->nguests && !r; i++) {
		if (c->guest[i].gone)
			continue;
		cell_io_again(c, &c->guest[i]);
		r = cell_guest_merge(c, &c->guest[i]);
	}
	return r ? ob_fail(e, -r, "cell %u: merging: %s", c->number, strerror(-r)) : 0;
}

int cell_switch_back(struct cell *c, struct ob_err *e)
{
	ksm_unmerge_end(c->ksm, &c->undo);
	switching(c, false);
	return cell_engine_start(c, e);
}
