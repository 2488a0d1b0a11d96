/* SPDX-License-Identifier: Apache-2.0 */
/* memrig.h: guests of this process that run a memory workload, for tests (harness/bench_rig.h). */
#ifndef OVERBOOK_TESTS_MEMRIG_H
#define OVERBOOK_TESTS_MEMRIG_H

#include "harness/bench_rig.h"
#include "tests/cli.h"

#define MEMRIG_MEM   (32 * OB_MIB)
#define MEMRIG_PAGES (MEMRIG_MEM / OB_PAGE_SIZE)

/* What all of them have in common. */
struct bench_rig_config memrig_config(const char *workload, unsigned int guests);
/* Make and start them; the test fails when that fails. */
void memrig_start(struct bench_rig *r, const char *workload, unsigned int guests);
/* Stop them; the test fails when one had ended or had found a wrong page. */
void memrig_finish(struct bench_rig *r);
/* Until guest 0 has done @n more operations. */
void memrig_work(struct bench_rig *r, uint64_t n);
/* Page @i of the area of guest @g, as the host sees it. */
uint64_t *memrig_page(struct bench_rig *r, unsigned int g, uint64_t i);
/* Wait until guest 0 has noticed a wrong page: what it says of the first one. */
struct agent_mismatch memrig_noticed(struct bench_rig *r);
/* Ends a rig whose guest has found a wrong page: that is what looking and closing say, too. */
void memrig_finish_wrong(struct bench_rig *r);

#endif
