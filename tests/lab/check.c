/* SPDX-License-Identifier: Apache-2.0 */
/* check.c: what is promised of a run of the lab: of each phase, of each guest, of what is saved. */
#include <stdio.h>
#include <string.h>

#include "tests/lab/check.h"

/* Of what Linux KSM saves on the same guests, hash is to save at least so much. */
#define SHARE_OF_KSM 0.95

/* Each guest has worked and verified in phase @i: its counters, which go on from phase to phase, are more
 * than they were in @before (NULL: it is the first). A guest that hangs keeps its figures. */
static void check_progress(struct result *r, size_t i, const json_t *phase, const json_t *before)
{
	static const char *const counters[] = {"ops", "checked_pages"};
	const json_t *list = json_object_get(phase, "guest_list"), *g;
	double want = result_number(json_object_get(r->doc, "config"), "guests", NULL);
	size_t k;

	if ((double)json_array_size(list) != want)
		result_fail(r, "phase %zu: %zu of %.0f guests", i, json_array_size(list), want);
	json_array_foreach (list, k, g) {
		const json_t *was = json_array_get(json_object_get(before, "guest_list"), k);

		for (size_t c = 0; c < sizeof(counters) / sizeof(*counters); c++) {
			double then = result_number(was, counters[c], NULL);
			double now = result_number(g, counters[c], NULL);

			if (now <= then)
				result_fail(r,
					    "phase %zu: guest %zu stood still: %s %.0f before, "
					    "%.0f after",
					    i, k, counters[c], then, now);
		}
	}
}

static void check_phases(struct result *r)
{
	const json_t *asked = json_object_get(json_object_get(r->doc, "config"), "sharing");
	const json_t *phases = json_object_get(r->run, "phases"), *p;
	bool merged = false;
	size_t i;

	if (json_array_size(phases) != json_array_size(asked) || !json_array_size(asked))
		result_fail(r, "%zu of %zu phases were measured", json_array_size(phases),
			    json_array_size(asked));
	json_array_foreach (phases, i, p) {
		const char *s = json_string_value(json_object_get(p, "sharing"));
		const char *status = json_string_value(json_object_get(p, "status"));

		s = s ? s : "?";
		if (!status || strcmp(status, "ok"))
			result_fail(r, "phase %zu (%s) is %s", i, s, status ? status : "?");
		if (result_number(p, "integrity", "mismatches") ||
		    result_number(p, "integrity", "frame_check_errors"))
			result_fail(r, "phase %zu (%s): %.0f mismatches, %.0f wrong host frames", i,
				    s, result_number(p, "integrity", "mismatches"),
				    result_number(p, "integrity", "frame_check_errors"));
		if (result_number(p, "integrity", "checked_pages") <= 0)
			result_fail(r, "phase %zu (%s): no page was checked", i, s);
		check_progress(r, i, p, i ? json_array_get(phases, i - 1) : NULL);
		/* What was merged must have its own memory again. */
		if (!strcmp(s, "off") && merged &&
		    result_number(p, "saved", "inter") + result_number(p, "saved", "intra") > 0)
			result_fail(r, "phase %zu (off): still shares %.1f MiB", i,
				    (result_number(p, "saved", "inter") +
				     result_number(p, "saved", "intra")) /
					    MIB);
		merged |= strcmp(s, "off") != 0;
		if (result_number(json_object_get(p, "left"), "frames_left", NULL))
			result_fail(r, "phase %zu (%s): %.0f frames were left behind", i, s,
				    result_number(json_object_get(p, "left"), "frames_left", NULL));
	}
}

/* Each vCPU of guest @i has its worker, as far as the guest's memory has room; in sums of what they did a
 * missing one does not show. */
static void check_workers(struct result *r, size_t i, const json_t *g)
{
	double vcpus = result_number(json_object_get(r->doc, "config"), "vcpus", NULL);
	double workers = result_number(g, "workers", NULL);
	double room = result_number(g, "workers_room", NULL);

	if (workers < 1 || workers < (room < vcpus ? room : vcpus))
		result_fail(r, "guest %zu: %.0f workers on %.0f vCPUs, with memory for %.0f", i,
			    workers, vcpus, room);
	else if (workers < vcpus)
		printf("NOTE %s: guest %zu has memory for %.0f workers only, and %.0f vCPUs\n",
		       r->name, i, room, vcpus);
}

static void check_guests(struct result *r)
{
	const json_t *config = json_object_get(r->doc, "config");
	const json_t *list = json_object_get(r->run, "guest_list"), *g;
	const char *agent = json_string_value(json_object_get(config, "agent"));
	double want = result_number(config, "guests", NULL);
	bool told = json_object_get(json_array_get(list, 0), "workers") != NULL;
	size_t i;

	if (!told)
		printf("NOTE %s: does not say how many workers its guests have: it is too old\n",
		       r->name);
	if ((double)json_array_size(list) != want)
		result_fail(r, "%zu of %.0f guests", json_array_size(list), want);
	json_array_foreach (list, i, g) {
		const char *end = json_string_value(json_object_get(g, "end"));

		if (!end || strcmp(end, "running"))
			result_fail(r, "guest %zu: %s", i, end ? end : "?");
		if (result_number(g, "reboots", NULL))
			result_fail(r, "guest %zu: has reset %.0f times", i,
				    result_number(g, "reboots", NULL));
		if (told && agent && !strcmp(agent, "port"))
			check_workers(r, i, g);
	}
}

/* A reference is one, and there is something to hold it against. */
static void check_reference(struct result *r, const struct result *all, unsigned int n)
{
	if (!result_nokaslr(r))
		result_fail(r, "is no reference: its guests were started without nokaslr");
	else if (!result_partner(all, n, r))
		result_fail(r, "no result with KASLR and else of the same outer kernel, paging and "
			       "configuration is beside it");
}

void check(struct result *r, const struct result *all, unsigned int n)
{
	const char *status = json_string_value(json_object_get(r->doc, "status"));
	const char *mode =
		json_string_value(json_object_get(json_object_get(r->doc, "host"), "kvm_mode"));
	const json_t *hash = result_phase(r, "hash"), *kernel = result_phase(r, "kernel");

	if (!status || strcmp(status, "ok"))
		result_fail(r, "the result is %s", status ? status : "?");
	if (r->want_mode && (!mode || strcmp(mode, r->want_mode)))
		result_fail(r, "KVM maps guests by %s, not %s", mode ? mode : "?", r->want_mode);
	check_phases(r);
	check_guests(r);
	if (r->reference)
		check_reference(r, all, n);
	/* Else what hash is held against is not what Linux KSM can save. */
	if (kernel &&
	    !json_is_true(json_object_get(json_object_get(kernel, "kernel_ksm"), "converged"))) {
		if (r->brief)
			printf("NOTE %s: Linux KSM had not finished\n", r->name);
		else
			result_fail(r, "Linux KSM had not finished; give it longer: LAB_SECONDS");
	}
	if (!hash || !kernel)
		result_fail(r, "no figures of hash beside those of kernel");
	else if (result_number(kernel, "saved_bytes", NULL) <= 0)
		result_fail(r, "Linux KSM saved nothing: there is nothing to hold hash against");
	else if (result_number(hash, "saved_bytes", NULL) <
		 SHARE_OF_KSM * result_number(kernel, "saved_bytes", NULL))
		result_fail(r, "hash saves %.1f MiB, less than %.0f %% of the %.1f MiB of kernel",
			    result_number(hash, "saved_bytes", NULL) / MIB, SHARE_OF_KSM * 100,
			    result_number(kernel, "saved_bytes", NULL) / MIB);
}
