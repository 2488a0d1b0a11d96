/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtqueue.c: the device's side of a split virtqueue (virtio 1.2, section 2.7).
 *
 * The driver owns three areas of guest memory: the descriptor table, the available ring, through
 * which it hands chains of descriptors to us, and the used ring, through which we give them back.
 * All of it may be nonsense, and all of it may change while we look at it. So:
 *
 *  - whatever is read is read once, into a local copy, and the copy is checked and then used. What
 *    we return (struct virtq_chain) is ours; the guest cannot change it any more;
 *  - each address and length is checked to lie in RAM here, so that a device may take that for
 *    granted; a device's accesses are checked again by gmem_access_begin, which costs nothing to
 *    speak of;
 *  - each walk is bounded by a set of the descriptors that it has seen, which also tells a loop
 *    from a chain that is merely long.
 *
 * The first thing that is wrong makes the queue broken until it is reset, with a reason of its own.
 *
 * Ordering. The driver writes descriptors and ring entry, then the available index; we read the
 * index with acquire, then the rest. We write the used entry, then the used index with release.
 * Whether to interrupt is read after that with a full barrier between, as the driver writes its
 * wish and then looks at the used index: one of us must see the other.
 *
 * Indirect descriptors (one descriptor that points to a table of them) are followed when the driver
 * has negotiated them: a table in RAM, of at most VIRTQ_MAX entries, at the end of a chain, not
 * nested.
 */
#include <errno.h>
#include <string.h>

#include "kernel/device.h"

#define DESC_F_NEXT	1
#define DESC_F_WRITE	2
#define DESC_F_INDIRECT 4

#define AVAIL_F_NO_INTERRUPT 1

struct virtq_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags;
	uint16_t next;
};
_Static_assert(sizeof(struct virtq_desc) == 16, "as the driver lays it out");

struct virtq_used_elem {
	uint32_t id;
	uint32_t len;
};

/* Layout of the rings: flags, idx, then the entries. */
#define RING_IDX     2
#define RING_ENTRIES 4

static uint64_t desc_bytes(uint16_t size)
{
	return sizeof(struct virtq_desc) * (uint64_t)size;
}

static uint64_t avail_bytes(uint16_t size)
{
	return 6 + 2 * (uint64_t)size;
}

static uint64_t used_bytes(uint16_t size)
{
	return 6 + sizeof(struct virtq_used_elem) * (uint64_t)size;
}

static int enable_fail(const char **why, const char *reason)
{
	*why = reason;
	return -EINVAL;
}

int virtq_enable(struct virtq *q, const char **why)
{
	if (!q->size || q->size > VIRTQ_MAX || q->size & (q->size - 1))
		return enable_fail(why, "queue size is not a power of two within the limit");
	if (q->desc.v & 15)
		return enable_fail(why, "descriptor table is not aligned to 16 bytes");
	if (q->avail.v & 1)
		return enable_fail(why, "available ring is not aligned to 2 bytes");
	if (q->used.v & 3)
		return enable_fail(why, "used ring is not aligned to 4 bytes");
	if (!gmem_ptr(q->mem, q->desc, desc_bytes(q->size)))
		return enable_fail(why, "descriptor table is not inside RAM");
	if (!gmem_ptr(q->mem, q->avail, avail_bytes(q->size)))
		return enable_fail(why, "available ring is not inside RAM");
	if (!gmem_ptr(q->mem, q->used, used_bytes(q->size)))
		return enable_fail(why, "used ring is not inside RAM");
	q->last_avail = 0;
	q->used_idx = 0;
	q->broken = NULL;
	q->ready = true;
	return 0;
}

void virtq_reset(struct virtq *q)
{
	*q = (struct virtq){.mem = q->mem};
}

static int broken(struct virtq *q, const char **why, const char *reason)
{
	q->broken = reason;
	*why = reason;
	return -EPROTO;
}

/* A ring access failed. The areas were checked,
 * so only "too many accesses under way" is no news. */
static int access_failed(struct virtq *q, int rc, const char **why)
{
	if (rc == -EBUSY)
		return rc;
	return broken(q, why, "ring is not inside RAM");
}

static gpa_t plus(gpa_t at, uint64_t off)
{
	return gpa(at.v + off);
}

/* The 16-bit fields that driver and device race on are single loads and stores, never copies. */
static int load16(struct virtq *q, gpa_t at, uint16_t *v)
{
	struct gmem_access acc;
	int rc = gmem_access_begin(q->mem, at, sizeof(*v), false, &acc);

	if (rc)
		return rc;
	*v = __atomic_load_n((const uint16_t *)acc.ptr, __ATOMIC_ACQUIRE);
	gmem_access_end(q->mem, &acc);
	return 0;
}

static int store16(struct virtq *q, gpa_t at, uint16_t v)
{
	struct gmem_access acc;
	int rc = gmem_access_begin(q->mem, at, sizeof(v), true, &acc);

	if (rc)
		return rc;
	__atomic_store_n((uint16_t *)acc.ptr, v, __ATOMIC_RELEASE);
	gmem_access_end(q->mem, &acc);
	return 0;
}

/* Add one buffer to the chain; NULL, or what is wrong with it. */
static const char *add_buf(const struct virtq *q, struct virtq_chain *c, const struct virtq_desc *d)
{
	bool write = d->flags & DESC_F_WRITE;

	if (c->n == VIRTQ_MAX_CHAIN)
		return "descriptor chain is too long";
	if (!d->len)
		return "buffer of length 0";
	if (d->addr + d->len < d->addr)
		return "buffer address wraps";
	if (!gmem_ptr(q->mem, gpa(d->addr), d->len))
		return "buffer is not inside RAM";
	if (!write && c->write_len)
		return "readable buffer after a writable one";
	if (c->read_len + c->write_len + d->len > UINT32_MAX)
		return "descriptor chain is over 4 GiB";
	c->buf[c->n++] = (struct virtq_buf){.gpa = gpa(d->addr), .len = d->len, .write = write};
	*(write ? &c->write_len : &c->read_len) += d->len;
	return NULL;
}

struct desc_set {
	uint64_t bits[VIRTQ_MAX / 64];
};

/* Add @i < VIRTQ_MAX; was it there already? */
static bool set_add(struct desc_set *s, unsigned int i)
{
	uint64_t bit = 1ULL << (i % 64);
	bool was = s->bits[i / 64] & bit;

	s->bits[i / 64] |= bit;
	return was;
}

static const char *check_indirect(const struct virtq *q, const struct virtq_desc *d)
{
	if (!q->indirect)
		return "indirect descriptor that was not negotiated";
	if (d->flags & DESC_F_NEXT)
		return "indirect descriptor that is not the last of its chain";
	if (!d->len || d->len % sizeof(*d))
		return "indirect table of a broken length";
	if (d->len / sizeof(*d) > VIRTQ_MAX)
		return "indirect table is too long";
	if (!gmem_ptr(q->mem, gpa(d->addr), d->len))
		return "indirect table is not inside RAM";
	return NULL;
}

/* Follow one table of @size entries from entry @i. A chain may end with a step into an indirect
 * table, which is then in @into. */
static int walk(struct virtq *q, struct virtq_chain *c, gpa_t table, unsigned int size,
		unsigned int i, struct virtq_desc *into, const char **why)
{
	bool nested = into == NULL;
	struct desc_set seen = {0};
	struct virtq_desc d;

	for (;;) {
		const char *bad;
		int rc;

		if (set_add(&seen, i))
			return broken(q, why, "descriptor chain is a loop");
		rc = gmem_read(q->mem, plus(table, i * sizeof(d)), &d, sizeof(d));
		if (rc)
			return access_failed(q, rc, why);
		if (d.flags & DESC_F_INDIRECT) {
			if (nested)
				return broken(q, why, "indirect descriptor in an indirect table");
			bad = check_indirect(q, &d);
			if (bad)
				return broken(q, why, bad);
			*into = d;
			return 0;
		}
		bad = add_buf(q, c, &d);
		if (bad)
			return broken(q, why, bad);
		if (!(d.flags & DESC_F_NEXT))
			return 0;
		if (d.next >= size)
			return broken(q, why, "next descriptor is out of range");
		i = d.next;
	}
}

int virtq_pop(struct virtq *q, struct virtq_chain *c, const char **why)
{
	struct virtq_desc into = {0};
	uint16_t idx, head;
	int rc;

	if (q->broken) {
		*why = q->broken;
		return -EPROTO;
	}
	if (!q->ready)
		return 0;
	rc = load16(q, plus(q->avail, RING_IDX), &idx);
	if (rc)
		return access_failed(q, rc, why);
	if (idx == q->last_avail)
		return 0;
	if ((uint16_t)(idx - q->last_avail) > q->size)
		return broken(q, why, "available index is ahead by more than the queue size");
	rc = load16(q, plus(q->avail, RING_ENTRIES + 2ULL * (q->last_avail % q->size)), &head);
	if (rc)
		return access_failed(q, rc, why);
	if (head >= q->size)
		return broken(q, why, "first descriptor is out of range");

	c->head = head;
	c->n = 0;
	c->read_len = c->write_len = 0;
	rc = walk(q, c, q->desc, q->size, head, &into, why);
	if (!rc && into.len)
		rc = walk(q, c, gpa(into.addr), into.len / (unsigned int)sizeof(into), 0, NULL,
			  why);
	if (rc)
		return rc;
	q->last_avail++;
	return 1;
}

int virtq_push(struct virtq *q, uint16_t head, uint32_t len, const char **why)
{
	struct virtq_used_elem el = {.id = head, .len = len};
	int rc;

	if (q->broken) {
		*why = q->broken;
		return -EPROTO;
	}
	OB_ASSERT(q->ready && head < q->size);
	rc = gmem_write(q->mem, plus(q->used, RING_ENTRIES + sizeof(el) * (q->used_idx % q->size)),
			&el, sizeof(el));
	if (rc)
		return access_failed(q, rc, why);
	rc = store16(q, plus(q->used, RING_IDX), (uint16_t)(q->used_idx + 1));
	if (rc)
		return access_failed(q, rc, why);
	q->used_idx++;
	return 0;
}

bool virtq_wants_irq(struct virtq *q)
{
	uint16_t flags;

	if (!q->ready)
		return false;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	/* When in doubt, interrupt: one too many does no harm. */
	if (load16(q, q->avail, &flags))
		return true;
	return !(flags & AVAIL_F_NO_INTERRUPT);
}
