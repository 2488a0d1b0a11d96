/* SPDX-License-Identifier: Apache-2.0 */
/* pure_agent_beat.c: the one heartbeat of the workers of an agent: it stands when one of theirs does. */
#include <criterion/criterion.h>

#include "tests/rnd.h"
#include "workloads/linux/beat.h"

Test(agent_beat, one_that_stands_is_not_made_up_for_by_others)
{
	struct beat b = {0};
	uint64_t now[3] = {1, 1, 1};

	cr_assert_eq(beat_next(&b, now, 3), 1);
	cr_assert_eq(beat_next(&b, now, 3), 1, "nobody has beaten");
	for (unsigned int i = 0; i < 1000; i++) {
		now[0]++;
		now[2] += 100;
		cr_assert_eq(beat_next(&b, now, 3), 1, "worker 1 stands");
	}
	now[1]++;
	cr_assert_eq(beat_next(&b, now, 3), 2, "what the others did meanwhile counts");
	now[1]++;
	cr_assert_eq(beat_next(&b, now, 3), 2, "and now they stand");
}

Test(agent_beat, one_that_has_not_begun_is_waited_for)
{
	struct beat b = {0};
	uint64_t now[2] = {5, 0};

	cr_assert_eq(beat_next(&b, now, 2), 0);
	now[1] = 1;
	cr_assert_eq(beat_next(&b, now, 2), 1);
}

Test(agent_beat, one_worker_or_none)
{
	struct beat b = {0};
	uint64_t now = 7;

	cr_assert_eq(beat_next(&b, &now, 0), 0);
	cr_assert_eq(beat_next(&b, &now, 1), 1);
	cr_assert_eq(beat_next(&b, &now, 1), 1);
	now++;
	cr_assert_eq(beat_next(&b, &now, 1), 2);
}

/* However they take turns: when each beats once in so many looks, so does their one, and never backwards. */
Test(agent_beat, is_as_often_as_the_slowest)
{
	const unsigned int within = 10;
	uint64_t now[WORKERS_MAX] = {0}, last[WORKERS_MAX] = {0}, sent = 0, at = 0, rng = 3;
	struct beat b = {0};

	for (uint64_t look = 1; look < 20000; look++) {
		uint64_t next;

		for (unsigned int i = 0; i < WORKERS_MAX; i++)
			if (look - last[i] == within || rnd(&rng) % 20 == 0) {
				now[i] += 1 + rnd(&rng) % 3;
				last[i] = look;
			}
		next = beat_next(&b, now, WORKERS_MAX);
		cr_assert(next == sent || next == sent + 1);
		if (next != sent)
			at = look;
		sent = next;
		cr_assert_leq(look - at, within, "look %llu", (unsigned long long)look);
	}
	cr_assert_gt(sent, 1000);
}
