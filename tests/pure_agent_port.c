/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pure_agent_port.c: frames of an agent under Linux. The VM is one without vCPUs, which can still end,
 * and say why.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/vm.h"
#include "tests/fake_host.h"

#define RAM   (4 * OB_MIB)
#define PAGES (RAM / OB_PAGE_SIZE)

struct bed {
	struct ob_host *h;
	struct vm vm;
	struct agent_port port;
	uint64_t asked, last_page, last_n; /* of count_shared */
};

static uint64_t count_shared(void *arg, uint64_t page, uint64_t n)
{
	struct bed *b = arg;

	cr_assert(page < PAGES && n && n <= PAGES - page);
	b->asked += n;
	b->last_page = page;
	b->last_n = n;
	return n / 2;
}

static struct bed *bed_new(void)
{
	struct bed *b = calloc(1, sizeof(*b));

	b->h = fake_host_new();
	cr_assert_eq(gmem_init(&b->vm.mem, b->h, RAM, "t"), 0);
	ob_mutex_init(&b->vm.end_lock, OB_RANK_VM_END);
	serial_init(&b->vm.serial, -1);
	b->vm.agent.vm = &b->vm;
	b->vm.agent.count_shared = count_shared;
	b->vm.agent.count_arg = b;
	agent_port_init(&b->port, &b->vm.agent);
	agent_port_ops.opened(&b->port, true);
	return b;
}

static void bed_free(struct bed *b)
{
	agent_port_exit(&b->port);
	serial_exit(&b->vm.serial);
	ob_mutex_destroy(&b->vm.end_lock);
	gmem_exit(&b->vm.mem);
	fake_host_free(b->h);
	free(b);
}

static void feed(struct bed *b, const void *bytes, size_t n)
{
	agent_port_ops.out(&b->port, bytes, n);
}

static size_t frame(uint8_t *to, unsigned int type, const void *body, size_t n)
{
	struct agent_frame h = {AGENT_FRAME_MAGIC, (uint16_t)type, (uint16_t)n};

	memcpy(to, &h, sizeof(h));
	memcpy(to + sizeof(h), body, n);
	return sizeof(h) + n;
}

static void send(struct bed *b, unsigned int type, const void *body, size_t n)
{
	uint8_t buf[sizeof(struct agent_frame) + AGENT_FRAME_MAX];

	feed(b, buf, frame(buf, type, body, n));
}

static void failed(struct bed *b, const char *why)
{
	cr_assert_eq(b->vm.end, VM_END_FAILED, "should say: %s", why);
	cr_assert_not_null(strstr(b->vm.reason, why), "it says: %s", b->vm.reason);
	bed_free(b);
}

Test(agent_port, a_report_is_what_is_read)
{
	struct bed *b = bed_new();
	struct agent_report r = {.magic = AGENT_REPORT_MAGIC, .phase = AGENT_WARM, .ops = 7}, got;

	cr_assert(!agent_read_report(&b->vm.agent, &got));
	send(b, AGENT_FRAME_REPORT, &r, sizeof(r));
	cr_assert(agent_read_report(&b->vm.agent, &got));
	cr_assert(!memcmp(&r, &got, sizeof(r)));
	r.ops = 8;
	r.lat[AGENT_LAT_BUCKETS - 1] = 3;
	send(b, AGENT_FRAME_REPORT, &r, sizeof(r));
	cr_assert(agent_read_report(&b->vm.agent, &got));
	cr_assert(!memcmp(&r, &got, sizeof(r)));
	agent_port_reset(&b->port);
	cr_assert(!agent_read_report(&b->vm.agent, &got), "of the one before");
	cr_assert_eq(b->port.frames, 2);
	cr_assert_eq(b->vm.end, VM_END_NONE);
	bed_free(b);
}

Test(agent_port, checked_pages_are_counted)
{
	struct bed *b = bed_new();
	uint64_t words[] = {5ULL << 16 | 4, AGENT_GFN_UNKNOWN << 16 | 100, (PAGES - 1) << 16 | 1};

	send(b, AGENT_FRAME_CHECKED, words, sizeof(words));
	cr_assert_eq(b->vm.agent.checked_pages, 105);
	cr_assert_eq(b->vm.agent.checked_shared, 2);
	cr_assert_eq(b->asked, 5, "nobody knows where the others are");
	cr_assert_eq(b->last_page, PAGES - 1);
	send(b, AGENT_FRAME_CHECKED, words, 0);
	cr_assert_eq(b->vm.agent.checked_pages, 105);
	send(b, AGENT_FRAME_MISMATCH, words, 8);
	cr_assert_eq(b->vm.agent.mismatches, 1);
	cr_assert_eq(b->vm.end, VM_END_NONE);
	bed_free(b);
}

/* A few bytes must not make us look at pages for ever. */
Test(agent_port, what_is_looked_at_is_bounded)
{
	struct bed *b = bed_new();
	uint64_t words[AGENT_FRAME_MAX / 8];

	for (unsigned int i = 0; i < OB_ARRAY_SIZE(words); i++)
		words[i] = 0ULL << 16 | PAGES;
	send(b, AGENT_FRAME_CHECKED, words, sizeof(words));
	cr_assert_eq(b->vm.agent.checked_pages, PAGES * OB_ARRAY_SIZE(words));
	cr_assert(b->asked >= PAGES && b->asked <= 65536);
	cr_assert_eq(b->vm.end, VM_END_NONE);
	bed_free(b);
}

Test(agent_port, the_end)
{
	struct bed *b = bed_new();
	uint64_t code = 3, word = 1;

	send(b, AGENT_FRAME_EXIT, &code, sizeof(code));
	cr_assert_eq(b->vm.end, VM_END_EXIT);
	cr_assert_eq(b->vm.exit_code, 3);
	send(b, AGENT_FRAME_MISMATCH, &word, sizeof(word));
	cr_assert_eq(b->vm.agent.mismatches, 0, "nothing comes after it");
	bed_free(b);
}

/* The same frames, cut at every place, and byte by byte. */
Test(agent_port, frames_may_be_cut_anywhere)
{
	struct agent_report r = {.magic = AGENT_REPORT_MAGIC, .ops = 11}, got;
	uint64_t words[] = {1ULL << 16 | 2, 9ULL << 16 | 1}, gpa_of = 4096;
	static uint8_t all[8192];
	size_t n = 0;

	n += frame(all + n, AGENT_FRAME_CHECKED, words, sizeof(words));
	n += frame(all + n, AGENT_FRAME_REPORT, &r, sizeof(r));
	n += frame(all + n, AGENT_FRAME_CHECKED, words, 0);
	n += frame(all + n, AGENT_FRAME_MISMATCH, &gpa_of, sizeof(gpa_of));
	for (size_t cut = 0; cut <= n; cut++) {
		struct bed *b = bed_new();

		if (cut < n) {
			feed(b, all, cut);
			feed(b, all + cut, n - cut);
		} else {
			for (size_t i = 0; i < n; i++)
				feed(b, all + i, 1);
		}
		cr_assert_eq(b->port.frames, 4, "cut at %zu", cut);
		cr_assert_eq(b->vm.agent.checked_pages, 3);
		cr_assert_eq(b->vm.agent.mismatches, 1);
		cr_assert(agent_read_report(&b->vm.agent, &got) && got.ops == 11);
		bed_free(b);
	}
}

/* A program that was killed in the middle of a frame, and the next one. */
Test(agent_port, half_a_frame_is_forgotten_when_the_port_is_closed)
{
	struct bed *b = bed_new();
	uint64_t word = 1ULL << 16 | 1;
	uint8_t buf[64];
	size_t n = frame(buf, AGENT_FRAME_CHECKED, &word, sizeof(word));

	feed(b, buf, n - 1);
	agent_port_ops.opened(&b->port, false);
	agent_port_ops.opened(&b->port, true);
	feed(b, buf, n);
	cr_assert_eq(b->vm.agent.checked_pages, 1);
	cr_assert_eq(b->vm.end, VM_END_NONE);
	bed_free(b);
}

static void nonsense(uint32_t magic, unsigned int type, size_t n, const char *why)
{
	struct bed *b = bed_new();
	struct agent_frame h = {magic, (uint16_t)type, (uint16_t)n};
	uint64_t ok = 4096;

	feed(b, &h, sizeof(h));
	send(b, AGENT_FRAME_MISMATCH, &ok, sizeof(ok));
	cr_assert_eq(b->vm.agent.mismatches, 0, "nothing is believed after that");
	failed(b, why);
}

Test(agent_port, frames_that_make_no_sense_stop_the_vm)
{
	struct bed *b = bed_new();
	struct agent_report r = {.magic = 1};
	uint64_t word;

	nonsense(AGENT_FRAME_MAGIC + 1, 1, 8, "what it sends is not a frame");
	nonsense(AGENT_FRAME_MAGIC, 0, 8, "a frame of no known type");
	nonsense(AGENT_FRAME_MAGIC, AGENT_FRAME_KINDS + 1, 8, "a frame of no known type");
	nonsense(AGENT_FRAME_MAGIC, AGENT_FRAME_KINDS, 8, "kinds of no page");
	nonsense(AGENT_FRAME_MAGIC, AGENT_FRAME_KINDS, 0, "kinds of no page");
	nonsense(AGENT_FRAME_MAGIC, AGENT_FRAME_CHECKED, AGENT_FRAME_MAX + 8,
		 "a frame that is too long");
	nonsense(AGENT_FRAME_MAGIC, AGENT_FRAME_CHECKED, UINT16_MAX, "a frame that is too long");
	nonsense(AGENT_FRAME_MAGIC, AGENT_FRAME_CHECKED, 12, "a list of checked pages that is cut");
	nonsense(AGENT_FRAME_MAGIC, AGENT_FRAME_REPORT, sizeof(r) - 8,
		 "a report of another length");
	nonsense(AGENT_FRAME_MAGIC, AGENT_FRAME_EXIT, 0, "a frame of another length");
	nonsense(AGENT_FRAME_MAGIC, AGENT_FRAME_MISMATCH, 16, "a frame of another length");
	send(b, AGENT_FRAME_REPORT, &r, sizeof(r));
	cr_assert(!agent_read_report(&b->vm.agent, &r));
	failed(b, "a report that is none");
	b = bed_new();
	word = PAGES << 16 | 1;
	send(b, AGENT_FRAME_CHECKED, &word, sizeof(word));
	failed(b, "checked pages outside RAM");
	b = bed_new();
	word = (PAGES - 1) << 16 | 2;
	send(b, AGENT_FRAME_CHECKED, &word, sizeof(word));
	cr_assert_eq(b->asked, 0);
	failed(b, "checked pages outside RAM");
}

/* --- what pages are ------------------------------------------------------------------------ */

struct kinds_frame {
	uint64_t gfn;
	uint8_t kind[64];
};

Test(agent_port, kinds_of_pages_are_kept)
{
	struct bed *b = bed_new();
	uint8_t kinds[PAGES + 1] = {0};
	struct kinds_frame f = {.gfn = 3, .kind = {AGENT_PAGE_FREE, AGENT_PAGE_CACHE}};

	send(b, AGENT_FRAME_KINDS, &f, 10); /* to nobody */
	b->vm.agent.kinds = kinds;
	kinds[PAGES] = 99;
	kinds[5] = AGENT_PAGE_SLAB;
	send(b, AGENT_FRAME_KINDS, &f, 10);
	cr_assert_eq(kinds[2], AGENT_PAGE_UNKNOWN);
	cr_assert_eq(kinds[3], AGENT_PAGE_FREE);
	cr_assert_eq(kinds[4], AGENT_PAGE_CACHE);
	cr_assert_eq(kinds[5], AGENT_PAGE_SLAB, "of two pages it was");
	f = (struct kinds_frame){.gfn = PAGES - 1, .kind = {AGENT_PAGE_KINDS - 1}};
	send(b, AGENT_FRAME_KINDS, &f, 9);
	cr_assert_eq(kinds[PAGES - 1], AGENT_PAGE_KINDS - 1);
	cr_assert_eq(b->vm.end, VM_END_NONE);
	agent_port_reset(&b->port);
	for (uint64_t i = 0; i < PAGES; i++)
		cr_assert_eq(kinds[i], AGENT_PAGE_UNKNOWN, "of the one before");
	cr_assert_eq(kinds[PAGES], 99, "this is no page");
	bed_free(b);
}

static void bad_kinds(uint64_t at, unsigned int pages, uint8_t last, const char *why)
{
	struct bed *b = bed_new();
	uint8_t kinds[PAGES + 64] = {0};
	struct kinds_frame f = {.gfn = at};

	b->vm.agent.kinds = kinds;
	memset(f.kind, AGENT_PAGE_ANON, sizeof(f.kind));
	f.kind[pages - 1] = last;
	send(b, AGENT_FRAME_KINDS, &f, sizeof(f.gfn) + pages);
	for (size_t i = 0; i < sizeof(kinds); i++)
		cr_assert_eq(kinds[i], AGENT_PAGE_UNKNOWN, "nothing of it is taken");
	failed(b, why);
}

Test(agent_port, kinds_that_make_no_sense_stop_the_vm)
{
	bad_kinds(PAGES, 1, 1, "kinds of pages outside RAM");
	bad_kinds(PAGES - 3, 4, 1, "kinds of pages outside RAM");
	bad_kinds(UINT64_MAX, 2, 1, "kinds of pages outside RAM");
	bad_kinds(UINT64_MAX >> 12, 2, 1, "kinds of pages outside RAM");
	bad_kinds(0, 64, AGENT_PAGE_KINDS, "a page of no known kind");
	bad_kinds(0, 1, 255, "a page of no known kind");
}

/* Noise never does more than end the VM. */
Test(agent_port, random_streams)
{
	const unsigned int first_seed = 97;
	unsigned int seed = first_seed, understood = 0;

	for (int round = 0; round < 2000; round++) {
		struct bed *b = bed_new();

		for (int i = 0; i < 20; i++) {
			uint8_t body[4096];
			size_t n = (size_t)rand_r(&seed) % 64;

			for (size_t k = 0; k < n; k++)
				body[k] = (uint8_t)(rand_r(&seed) % 3 ? 0 : rand_r(&seed));
			if (rand_r(&seed) % 10)
				send(b, (unsigned int)rand_r(&seed) % 6, body, n & ~7UL);
			else
				feed(b, body, n);
			if (rand_r(&seed) % 10 == 0)
				agent_port_ops.opened(&b->port, rand_r(&seed) % 2);
		}
		cr_assert(b->vm.end != VM_END_ASKED && b->port.fill <= sizeof(b->port.buf),
			  "seed %u", first_seed);
		understood += (unsigned int)b->port.frames;
		bed_free(b);
	}
	cr_assert_gt(understood, 1000, "only %u", understood);
}
