/* SPDX-License-Identifier: Apache-2.0 */
/*
 * track_check.h: does write tracking miss a write? For tests and benchmarks that run a tracker
 * under a guest whose every write to a page makes a counter in it larger.
 *
 * A pass is: snapshot; collect and take, whoever is checked; compare. The snapshot comes before the
 * collect, so a page whose counters differ in it from what was seen after the page was last
 * reported was written in between, and must be reported now. If it is not, it was missed.
 *
 * Counters are the first words of each page, as many as the page has writers (each writer its own,
 * so that two do not undo each other's); their sum stands for the content.
 */
#ifndef OVERBOOK_EPT_TRACK_CHECK_H
#define OVERBOOK_EPT_TRACK_CHECK_H

#include "kernel/kernel.h"

struct ept_track_check_stats {
	uint64_t passes;
	uint64_t written;   /* pages seen to have been written, over all passes */
	uint64_t reported;  /* pages reported */
	uint64_t missed;    /* written and not reported: must be 0 */
	uint64_t unchanged; /* reported, and the same before and after: false positives, and writes
			     * that fell between the collect before and our look at the page */
	uint64_t disputed;  /* most pages at once that another tracker knows and ours does not:
			     * see ept_track_check_other */
	uint64_t first_bad; /* page that was first missed; UINT64_MAX: none */
	uint64_t bad_pass;
};

struct ept_track_check {
	const struct gmem *mem;
	struct ob_arena *arena;
	uint64_t page, n;
	unsigned int words;
	uint64_t *seen; /* [n] sums after the page was last reported */
	uint64_t *now;	/* [n] sums in the snapshot */
	uint64_t *last; /* bitmap of the last pass */
	uint64_t *
		owed; /* pages that have changed, the other tracker reported, and ours has not yet */
	struct ept_track_check_stats st;
};

/*
 * Check [page, page + n) of @mem, with @words counters at the start of each page (1 to 512). All
 * pages count as written before the first pass. -EINVAL when the range or @words make no sense.
 */
int ept_track_check_init(struct ept_track_check *c, const struct gmem *mem, uint64_t page,
			 uint64_t n, unsigned int words, struct ob_arena *arena);
void ept_track_check_exit(struct ept_track_check *c);

/* Before the collect: read all counters, beside the running guest. Not while a device access is
 * under way: what it has written is reported when it ends. */
void ept_track_check_snapshot(struct ept_track_check *c);
/* After the collect: judge what it reported, (n + 63) / 64 words, bit 0 for the first page. */
void ept_track_check_compare(struct ept_track_check *c, const uint64_t *reported);
/*
 * What another tracker of the same pages (PAGEMAP_SCAN) reported in this pass, collected just
 * before ours; call it just before compare. The other has seen a write since its own pass before,
 * so ours must have reported that page in the pass before or report it now.
 *
 * One page a vCPU may be late without contradiction: KVM first has the host make the page writable,
 * which is what the other sees, and then notes it and lets the guest write, and between the two it
 * may be scheduled away or start anew. So at most as many pages as there are vCPUs may be owed at
 * any moment: st.disputed is to be compared with that.
 */
void ept_track_check_other(struct ept_track_check *c, const uint64_t *other);

#endif
