/* SPDX-License-Identifier: Apache-2.0 */
/* pure_coord.c: what the coordinator makes of what it was told. */
#include <criterion/criterion.h>
#include <string.h>

#include "harness/coord.h"

Test(coord, operations_of_a_phase_are_its_own)
{
	struct fleet_config cfg = {0};
	struct run_sample s[2] = {{.ops = 1000}, {.ops = 3000}};
	struct run_result out = {.sample = s, .nsamples = 2, .measured_seconds = 4};
	struct coord c = {.cfg = &cfg, .out = &out, .ops_t0 = 1000};

	cr_expect_float_eq(coord_ops_per_second(&c), 500, 1e-9);
	/* The phase after it: nobody does anything in it; and then it is not measured. */
	out.ops_per_second = 500;
	c.ops_t0 = 3000;
	cr_expect_float_eq(coord_ops_per_second(&c), 0, 1e-9);
	s[1].ops = 4000;
	out.measured_seconds = 0;
	cr_expect_float_eq(coord_ops_per_second(&c), 0, 1e-9);
	/* Nobody is there to count. */
	cfg.lx.on = true;
	out.measured_seconds = 4;
	cr_expect_float_eq(coord_ops_per_second(&c), -1, 1e-9);
}

Test(coord, an_agent_that_was_silent_at_the_end)
{
	struct coord_guest g[3] = {{.silent_ns = 19 * OB_NS_PER_SEC},
				   {.silent_ns = 99 * OB_NS_PER_SEC, .ended = true}};
	struct fleet_config cfg = {.guests = 3, .workload = {"kv", "idle"}, .nworkloads = 2};
	struct coord c = {.cfg = &cfg, .guest = g};
	char note[100] = "";

	cfg.lx = (struct linux_opts){.on = true, .agent = true, .hang = LINUX_HANG};
	cr_expect(!coord_linux_silent(&c, note, sizeof(note)));
	cr_expect_str_empty(note);
	g[2].silent_ns = 22 * OB_NS_PER_SEC;
	cr_expect(coord_linux_silent(&c, note, sizeof(note)));
	cr_expect_str_eq(note, "guest 2 (kv) has said nothing for 22 s");
	/* Emulated instruction by instruction it may well be. */
	cfg.lx.hang = LINUX_HANG_SOFTWARE;
	cr_expect(!coord_linux_silent(&c, note, sizeof(note)));
	/* Nobody is there to speak. */
	cfg.lx.hang = LINUX_HANG;
	cfg.lx.agent = false;
	cr_expect(!coord_linux_silent(&c, note, sizeof(note)));
	cfg.lx.on = false;
	cr_expect(!coord_linux_silent(&c, note, sizeof(note)));
}

/* A switch is refused while guests stand, which would end a run that goes through several modes. */
Test(coord, the_next_mode_waits_for_guests_that_stand)
{
	struct fleet_config cfg = {.seconds = 10, .live = true, .nsharing = 3};
	struct coord c = {.cfg = &cfg, .t0_ns = 1000 * OB_NS_PER_SEC, .phase_at = 50};
	uint64_t begin = 1050 * OB_NS_PER_SEC;

	cr_expect(coord_waits_for_memory(&c, true, begin + 10 * OB_NS_PER_SEC));
	cr_expect(coord_waits_for_memory(&c, true, begin + 89 * OB_NS_PER_SEC));
	cr_expect(!coord_waits_for_memory(&c, true, begin + 90 * OB_NS_PER_SEC), "not for ever");
	cr_expect(!coord_waits_for_memory(&c, false, begin + 10 * OB_NS_PER_SEC));
	c.mode = 2;
	cr_expect(!coord_waits_for_memory(&c, true, begin + 10 * OB_NS_PER_SEC), "none comes");
	c.mode = 0;
	cfg.live = false;
	cr_expect(!coord_waits_for_memory(&c, true, begin + 10 * OB_NS_PER_SEC));
}
