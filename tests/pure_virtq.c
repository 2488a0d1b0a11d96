/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pure_virtq.c: split queues: good chains, every kind of bad one with its reason, and a randomised
 * comparison with a naive reading of the same memory.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fake_host.h"
#include "tests/virtio_driver.h"

#define RAM   OB_MIB
#define RINGS 0x1000
#define DATA  0x8000
#define TABLE 0x20000

struct bed {
	struct ob_host *h;
	struct gmem gm;
	struct vdrv v;
	struct virtq q;
	struct virtq_chain c;
	const char *why;
};

static struct bed *bed_new(uint16_t size)
{
	struct bed *b = calloc(1, sizeof(*b));

	b->h = fake_host_new();
	cr_assert_eq(gmem_init(&b->gm, b->h, RAM, "t"), 0);
	vdrv_layout(&b->v, NULL, &b->gm, size, gpa(RINGS));
	b->q = (struct virtq){
		.mem = &b->gm,
		.size = size,
		.desc = b->v.desc,
		.avail = b->v.avail,
		.used = b->v.used,
		.indirect = true,
	};
	cr_assert_eq(virtq_enable(&b->q, &b->why), 0);
	return b;
}

static void bed_free(struct bed *b)
{
	gmem_exit(&b->gm);
	fake_host_free(b->h);
	free(b);
}

static int pop(struct bed *b)
{
	return virtq_pop(&b->q, &b->c, &b->why);
}

/* The queue must break with @why, and stay so. */
static void breaks(struct bed *b, const char *why)
{
	b->why = "nothing said";
	cr_assert_eq(pop(b), -EPROTO, "should say: %s", why);
	cr_assert_str_eq(b->why, why);
	vdrv_desc(&b->v, b->v.desc, 0, DATA, 16, 0, 0);
	cr_assert_eq(pop(b), -EPROTO);
	cr_assert_str_eq(b->why, why);
	cr_assert_eq(virtq_push(&b->q, 0, 0, &b->why), -EPROTO);
	bed_free(b);
}

static struct bed *with_desc(uint64_t addr, uint32_t len, uint16_t flags, uint16_t next)
{
	struct bed *b = bed_new(8);

	vdrv_desc(&b->v, b->v.desc, 0, addr, len, flags, next);
	vdrv_offer(&b->v, 0);
	return b;
}

static void enable_fails(struct virtq q, const char *why)
{
	const char *said = "nothing said";

	cr_assert_eq(virtq_enable(&q, &said), -EINVAL, "should say: %s", why);
	cr_assert_str_eq(said, why);
	cr_assert(!q.ready);
}

Test(virtq, enable_checks_size_and_places)
{
	struct bed *b = bed_new(8);
	struct virtq q = b->q, t;

	q.ready = false;
	for (unsigned int size = 0; size < 65536; size += size < 600 ? 1 : 997) {
		const char *said;

		t = q;
		t.size = (uint16_t)size;
		cr_assert_eq(virtq_enable(&t, &said) == 0,
			     size && size <= VIRTQ_MAX && !(size & (size - 1)), "size %u", size);
	}
	t = q;
	t.desc.v += 8;
	enable_fails(t, "descriptor table is not aligned to 16 bytes");
	t = q;
	t.avail.v += 1;
	enable_fails(t, "available ring is not aligned to 2 bytes");
	t = q;
	t.used.v += 2;
	enable_fails(t, "used ring is not aligned to 4 bytes");
	t = q;
	t.desc.v = RAM - 16 * 8 + 16;
	enable_fails(t, "descriptor table is not inside RAM");
	t.desc.v = RAM - 16 * 8;
	cr_assert_eq(virtq_enable(&t, &b->why), 0);
	t = q;
	t.avail.v = RAM - 20;
	enable_fails(t, "available ring is not inside RAM");
	t = q;
	t.used.v = UINT64_MAX - 3;
	enable_fails(t, "used ring is not inside RAM");
	bed_free(b);
}

Test(virtq, a_chain_is_taken_and_given_back)
{
	struct bed *b = bed_new(8);
	uint32_t id, len;

	cr_assert_eq(pop(b), 0);
	vdrv_desc(&b->v, b->v.desc, 5, DATA, 16, VDRV_NEXT, 2);
	vdrv_desc(&b->v, b->v.desc, 2, DATA + 512, 100, VDRV_NEXT | VDRV_WRITE, 7);
	vdrv_desc(&b->v, b->v.desc, 7, DATA + 4096, 1, VDRV_WRITE, 99);
	vdrv_offer(&b->v, 5);
	cr_assert_eq(pop(b), 1);
	cr_assert_eq(b->c.head, 5);
	cr_assert_eq(b->c.n, 3);
	cr_assert_eq(b->c.read_len, 16);
	cr_assert_eq(b->c.write_len, 101);
	cr_assert(!b->c.buf[0].write && b->c.buf[1].write && b->c.buf[2].write);
	cr_assert_eq(b->c.buf[1].gpa.v, DATA + 512);
	cr_assert_eq(b->c.buf[1].len, 100);
	cr_assert_eq(pop(b), 0);
	cr_assert(!vdrv_used(&b->v, &id, &len));
	cr_assert_eq(virtq_push(&b->q, b->c.head, 101, &b->why), 0);
	cr_assert(vdrv_used(&b->v, &id, &len) && id == 5 && len == 101);
	bed_free(b);
}

Test(virtq, indices_go_round)
{
	struct bed *b = bed_new(4);
	uint32_t id, len;

	for (unsigned int i = 0; i < 4; i++)
		vdrv_desc(&b->v, b->v.desc, i, DATA + i, 1, 0, 0);
	for (unsigned int i = 0; i < 70000; i++) {
		vdrv_offer(&b->v, (uint16_t)(i % 4));
		cr_assert_eq(pop(b), 1);
		cr_assert_eq(b->c.buf[0].gpa.v, DATA + i % 4);
		cr_assert_eq(virtq_push(&b->q, b->c.head, i, &b->why), 0);
		cr_assert(vdrv_used(&b->v, &id, &len) && id == i % 4 && len == i);
	}
	bed_free(b);
}

Test(virtq, the_driver_may_ask_for_silence)
{
	struct bed *b = bed_new(4);

	cr_assert(virtq_wants_irq(&b->q));
	vdrv_set_avail_flags(&b->v, 1);
	cr_assert(!virtq_wants_irq(&b->q));
	virtq_reset(&b->q);
	cr_assert(!virtq_wants_irq(&b->q), "a queue that is off wants nothing");
	cr_assert_eq(pop(b), 0);
	bed_free(b);
}

Test(virtq, broken_rings_have_their_reasons)
{
	struct bed *b = bed_new(8);

	vdrv_set_avail_idx(&b->v, 9);
	breaks(b, "available index is ahead by more than the queue size");
	b = bed_new(8);
	vdrv_set_avail_idx(&b->v, UINT16_MAX);
	breaks(b, "available index is ahead by more than the queue size");
	b = bed_new(8);
	vdrv_offer(&b->v, 8);
	breaks(b, "first descriptor is out of range");
}

Test(virtq, broken_descriptors_have_their_reasons)
{
	struct bed *b;

	breaks(with_desc(DATA, 0, 0, 0), "buffer of length 0");
	breaks(with_desc(UINT64_MAX - 3, 16, 0, 0), "buffer address wraps");
	breaks(with_desc(RAM - 15, 16, 0, 0), "buffer is not inside RAM");
	breaks(with_desc(1ULL << 63, 16, 0, 0), "buffer is not inside RAM");
	breaks(with_desc(0, UINT32_MAX, 0, 0), "buffer is not inside RAM");
	breaks(with_desc(DATA, 16, VDRV_NEXT, 8), "next descriptor is out of range");
	breaks(with_desc(DATA, 16, VDRV_NEXT, 0), "descriptor chain is a loop");

	b = with_desc(DATA, 16, VDRV_NEXT, 1);
	vdrv_desc(&b->v, b->v.desc, 1, DATA, 16, VDRV_NEXT, 2);
	vdrv_desc(&b->v, b->v.desc, 2, DATA, 16, VDRV_NEXT, 1);
	breaks(b, "descriptor chain is a loop");

	b = with_desc(DATA, 16, VDRV_NEXT | VDRV_WRITE, 1);
	vdrv_desc(&b->v, b->v.desc, 1, DATA, 16, 0, 0);
	breaks(b, "readable buffer after a writable one");

	b = bed_new(VIRTQ_MAX);
	for (unsigned int i = 0; i <= VIRTQ_MAX_CHAIN; i++)
		vdrv_desc(&b->v, b->v.desc, i, DATA, 16, VDRV_NEXT, (uint16_t)(i + 1));
	vdrv_offer(&b->v, 0);
	breaks(b, "descriptor chain is too long");
}

Test(virtq, the_longest_chain_is_taken)
{
	struct bed *b = bed_new(VIRTQ_MAX);

	for (unsigned int i = 0; i < VIRTQ_MAX_CHAIN; i++)
		vdrv_desc(&b->v, b->v.desc, i, DATA, 16, i + 1 < VIRTQ_MAX_CHAIN ? VDRV_NEXT : 0,
			  (uint16_t)(i + 1));
	vdrv_offer(&b->v, 0);
	cr_assert_eq(pop(b), 1);
	cr_assert_eq(b->c.n, VIRTQ_MAX_CHAIN);
	bed_free(b);
}

/* 128 buffers of a gigabyte: each is in RAM, together they are more than a used length can say. */
Test(virtq, a_chain_is_under_4_gib)
{
	struct ob_host *h = fake_host_new();
	struct gmem big, small;
	const char *why = "nothing said";
	struct virtq_chain c;
	struct vdrv v;
	struct virtq q;

	/* Rings in memory that is there, beside a region that nobody touches. */
	cr_assert_eq(gmem_init(&small, h, RAM, "t"), 0);
	big = small;
	big.region[big.nregions++] = (struct gmem_region){
		.gpa = gpa(4 * OB_GIB),
		.hva = hva(0x100000000000),
		.size = 2 * OB_GIB,
		.first_page = small.pages,
	};
	vdrv_layout(&v, NULL, &small, 8, gpa(RINGS));
	q = (struct virtq){
		.mem = &big, .size = 8, .desc = v.desc, .avail = v.avail, .used = v.used};
	cr_assert_eq(virtq_enable(&q, &why), 0);
	for (unsigned int i = 0; i < 4; i++)
		vdrv_desc(&v, v.desc, i, 4 * OB_GIB, OB_GIB, i < 3 ? VDRV_NEXT : 0,
			  (uint16_t)(i + 1));
	vdrv_offer(&v, 0);
	cr_assert_eq(virtq_pop(&q, &c, &why), -EPROTO);
	cr_assert_str_eq(why, "descriptor chain is over 4 GiB");
	gmem_exit(&small);
	fake_host_free(h);
}

/* --- indirect descriptors --------------------------------------------------------------------- */

Test(virtq, indirect_tables_are_followed)
{
	struct bed *b = bed_new(8);

	vdrv_desc(&b->v, b->v.desc, 3, DATA, 16, VDRV_NEXT, 4);
	vdrv_desc(&b->v, b->v.desc, 4, TABLE + 4, 3 * 16, VDRV_INDIRECT,
		  0); /* need not be aligned */
	vdrv_desc(&b->v, gpa(TABLE + 4), 0, DATA + 16, 32, VDRV_NEXT, 2);
	vdrv_desc(&b->v, gpa(TABLE + 4), 2, DATA + 64, 8, VDRV_WRITE, 0);
	vdrv_offer(&b->v, 3);
	cr_assert_eq(pop(b), 1);
	cr_assert_eq(b->c.head, 3);
	cr_assert_eq(b->c.n, 3);
	cr_assert_eq(b->c.read_len, 48);
	cr_assert_eq(b->c.write_len, 8);
	bed_free(b);
}

Test(virtq, broken_indirect_tables_have_their_reasons)
{
	struct bed *b;

	breaks(with_desc(TABLE, 15, VDRV_INDIRECT, 0), "indirect table of a broken length");
	breaks(with_desc(TABLE, 0, VDRV_INDIRECT, 0), "indirect table of a broken length");
	breaks(with_desc(TABLE, 16 * (VIRTQ_MAX + 1), VDRV_INDIRECT, 0),
	       "indirect table is too long");
	breaks(with_desc(RAM - 16, 32, VDRV_INDIRECT, 0), "indirect table is not inside RAM");
	breaks(with_desc(UINT64_MAX - 15, 16, VDRV_INDIRECT, 0),
	       "indirect table is not inside RAM");
	breaks(with_desc(TABLE, 16, VDRV_INDIRECT | VDRV_NEXT, 1),
	       "indirect descriptor that is not the last of its chain");

	b = with_desc(TABLE, 32, VDRV_INDIRECT, 0);
	b->q.indirect = false;
	breaks(b, "indirect descriptor that was not negotiated");

	b = with_desc(TABLE, 32, VDRV_INDIRECT, 0);
	vdrv_desc(&b->v, gpa(TABLE), 0, TABLE, 32, VDRV_INDIRECT, 0);
	breaks(b, "indirect descriptor in an indirect table");

	b = with_desc(TABLE, 32, VDRV_INDIRECT, 0);
	vdrv_desc(&b->v, gpa(TABLE), 0, DATA, 32, VDRV_NEXT, 1);
	vdrv_desc(&b->v, gpa(TABLE), 1, DATA, 32, VDRV_NEXT, 0);
	breaks(b, "descriptor chain is a loop");

	b = with_desc(TABLE, 32, VDRV_INDIRECT, 0);
	vdrv_desc(&b->v, gpa(TABLE), 0, DATA, 32, VDRV_NEXT, 2);
	breaks(b, "next descriptor is out of range");
}

/* --- an access that cannot be had just now is nobody's fault ---------------------------------- */

struct busy {
	struct gmem *gm;
	unsigned int nth; /* this access, counted from 1, says -EBUSY */
	unsigned int calls, open;
};

static int busy_begin(void *arg, gpa_t at, uint64_t len, bool write, struct gmem_access *acc)
{
	struct busy *b = arg;
	void *p = gmem_ptr(b->gm, at, len);

	if (++b->calls == b->nth)
		return -EBUSY;
	if (!p)
		return -EFAULT;
	b->open++;
	*acc = (struct gmem_access){.ptr = p, .gpa = at, .len = len, .write = write};
	return 0;
}

static void busy_end(void *arg, struct gmem_access *acc)
{
	struct busy *b = arg;

	cr_assert_not_null(acc->ptr);
	cr_assert(b->open--);
}

Test(virtq, busy_at_any_access_loses_nothing)
{
	static const struct gmem_ops ops = {.access_begin = busy_begin, .access_end = busy_end};
	bool clean = false;

	for (unsigned int nth = 1; !clean; nth++) {
		struct bed *b = bed_new(8);
		struct busy busy = {.gm = &b->gm, .nth = nth};
		uint32_t id, len;
		int rc;

		vdrv_desc(&b->v, b->v.desc, 0, DATA, 16, VDRV_NEXT, 1);
		vdrv_desc(&b->v, b->v.desc, 1, TABLE, 32, VDRV_INDIRECT, 0);
		vdrv_desc(&b->v, gpa(TABLE), 0, DATA, 32, VDRV_NEXT, 1);
		vdrv_desc(&b->v, gpa(TABLE), 1, DATA, 32, VDRV_WRITE, 1);
		vdrv_offer(&b->v, 0);
		b->gm.ops = &ops;
		b->gm.ops_arg = &busy;
		rc = pop(b);
		if (rc == -EBUSY)
			rc = pop(b);
		cr_assert_eq(rc, 1, "access %u", nth);
		cr_assert_eq(b->c.n, 3);
		rc = virtq_push(&b->q, b->c.head, 7, &b->why);
		if (rc == -EBUSY)
			rc = virtq_push(&b->q, b->c.head, 7, &b->why);
		cr_assert_eq(rc, 0, "access %u", nth);
		cr_assert(virtq_wants_irq(&b->q));
		cr_assert_eq(busy.open, 0);
		clean = busy.calls < nth;
		b->gm.ops = NULL;
		cr_assert(vdrv_used(&b->v, &id, &len) && id == 0 && len == 7);
		cr_assert(!vdrv_used(&b->v, &id, &len));
		bed_free(b);
	}
}

/* --- random tables against a naive reading ---------------------------------------------------- */

struct raw {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};

struct expect {
	bool good;
	unsigned int n;
	struct virtq_buf buf[2 * VIRTQ_MAX];
};

static bool in_ram(uint64_t addr, uint64_t len)
{
	return addr < RAM && len <= RAM && addr + len <= RAM;
}

/* Follow a chain with no cleverness: a step counter for loops, everything looked up afresh. */
static void naive(const struct gmem *gm, const struct raw *t, unsigned int size, unsigned int i,
		  bool nested, struct expect *x)
{
	x->good = false;
	for (unsigned int steps = 0; steps < size; steps++) {
		struct raw d;

		if (i >= size)
			return;
		d = t[i];
		if (d.flags & VDRV_INDIRECT) {
			if (nested || d.flags & VDRV_NEXT || !d.len || d.len % 16 ||
			    d.len / 16 > VIRTQ_MAX || !in_ram(d.addr, d.len))
				return;
			naive(gm, gmem_ptr(gm, gpa(d.addr), d.len), d.len / 16, 0, true, x);
			return;
		}
		if (!d.len || !in_ram(d.addr, d.len) || x->n == VIRTQ_MAX_CHAIN)
			return;
		x->buf[x->n++] = (struct virtq_buf){
			.gpa = gpa(d.addr), .len = d.len, .write = d.flags & VDRV_WRITE};
		if (x->n > 1 && x->buf[x->n - 2].write && !x->buf[x->n - 1].write)
			return;
		if (!(d.flags & VDRV_NEXT)) {
			x->good = true;
			return;
		}
		i = d.next;
	}
}

static struct raw random_desc(unsigned int *seed, unsigned int i, unsigned int size, bool table)
{
	struct raw d = {
		.addr = DATA + (uint64_t)(rand_r(seed) % 4096),
		.len = 1 + (uint32_t)(rand_r(seed) % 1000),
		/* Mostly forward, so that chains of some length come out. */
		.next = (uint16_t)(i + 1 + (unsigned int)(rand_r(seed) % 3)),
		.flags = (uint16_t)(rand_r(seed) % 4 ? VDRV_NEXT : 0),
	};

	if (i > size / 2)
		d.flags |= VDRV_WRITE;
	switch (rand_r(seed) % 60) {
	case 0:
		d.len = rand_r(seed) % 2 ? 0 : (uint32_t)rand_r(seed) * 2U;
		break;
	case 1:
		d.addr = RAM - (uint64_t)(rand_r(seed) % 2000);
		break;
	case 2:
		d.addr = (uint64_t)rand_r(seed) << 33;
		break;
	case 3:
		d.next = (uint16_t)rand_r(seed);
		break;
	case 4:
		d.next = (uint16_t)(rand_r(seed) % (int)size);
		break;
	case 5:
		d.flags ^= VDRV_WRITE;
		break;
	default:
		break;
	}
	if (rand_r(seed) % (table ? 40 : 6) == 0) {
		d.flags = VDRV_INDIRECT | (rand_r(seed) % 10 ? 0 : VDRV_NEXT);
		d.addr = TABLE;
		d.len = 16 * (1 + (uint32_t)(rand_r(seed) % 24)) + (rand_r(seed) % 20 ? 0 : 3);
	}
	if (!table && d.next >= size && rand_r(seed) % 8)
		d.flags &= (uint16_t)~VDRV_NEXT;
	return d;
}

Test(virtq, agrees_with_a_naive_reading)
{
	const unsigned int first_seed = 20251;
	unsigned int seed = first_seed, good = 0, bad = 0;

	for (int round = 0; round < 40000; round++) {
		uint16_t size = (uint16_t)(4U << rand_r(&seed) % 4), head;
		struct bed *b = bed_new(size);
		struct raw *t = gmem_ptr(&b->gm, b->v.desc, 16ULL * size);
		struct raw *ind = gmem_ptr(&b->gm, gpa(TABLE), 16 * 32);
		struct expect x = {0};
		int rc;

		for (unsigned int i = 0; i < size; i++)
			t[i] = random_desc(&seed, i, size, false);
		for (unsigned int i = 0; i < 32; i++)
			ind[i] = random_desc(&seed, i, 24, true);
		head = (uint16_t)(rand_r(&seed) % size);
		naive(&b->gm, t, size, head, false, &x);
		vdrv_offer(&b->v, head);
		rc = pop(b);
		cr_assert_eq(rc, x.good ? 1 : -EPROTO, "seed %u round %d: %d %s", first_seed, round,
			     rc, b->why);
		if (x.good) {
			uint64_t in = 0, out = 0;

			good++;
			cr_assert_eq(b->c.n, x.n, "seed %u round %d", first_seed, round);
			for (unsigned int i = 0; i < x.n; i++) {
				cr_assert_eq(b->c.buf[i].gpa.v, x.buf[i].gpa.v);
				cr_assert_eq(b->c.buf[i].len, x.buf[i].len);
				cr_assert_eq(b->c.buf[i].write, x.buf[i].write);
				*(x.buf[i].write ? &out : &in) += x.buf[i].len;
			}
			cr_assert(b->c.read_len == in && b->c.write_len == out);
		} else {
			bad++;
		}
		bed_free(b);
	}
	cr_assert(good > 5000 && bad > 5000, "the test tests both: %u good, %u bad", good, bad);
}
