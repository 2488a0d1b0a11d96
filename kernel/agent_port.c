/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agent_port.c: what an agent says that is a program under Linux, through a port of the virtio console:
 * a stream of frames (agent_abi.h), cut anywhere. It ends up in the same struct agent that the agent
 * device of the microguest fills.
 *
 * A frame is put together in a buffer of fixed size and done when it is whole. One that makes no sense
 * stops the VM: its sender is our own program, so that either it is broken or somebody else writes
 * here, and in a stream nothing that follows could be told from noise. When the port is opened or
 * closed, half a frame is forgotten: the program that sent it has ended, perhaps by force.
 *
 * The stream comes on the I/O worker, so all but the report needs no lock. The report is copied under
 * one: it is read by whoever takes samples. What pages are is written under it too, as a reset forgets it;
 * who reads that reads bytes that may change meanwhile.
 */
#include <string.h>

#include "kernel/vm.h"

/* Pages that are looked at, whether they are shared, for the bytes of one call: what a guest says with
 * a few bytes must not keep the I/O worker from others. An agent that means well says less. */
#define LOOK_PAGES 65536

static void make_no_sense(struct agent_port *p, const char *what)
{
	p->deaf = true;
	vm_fail(p->agent->vm, "the agent's port: %s", what);
}

/* NULL, or why there is no such frame. */
static const char *check_header(const struct agent_frame *h)
{
	if (h->magic != AGENT_FRAME_MAGIC)
		return "what it sends is not a frame";
	if (h->bytes > AGENT_FRAME_MAX)
		return "a frame that is too long";
	switch (h->type) {
	case AGENT_FRAME_REPORT:
		return h->bytes == sizeof(struct agent_report) ? NULL
							       : "a report of another length";
	case AGENT_FRAME_CHECKED:
		return h->bytes % sizeof(uint64_t) ? "a list of checked pages that is cut" : NULL;
	case AGENT_FRAME_KINDS:
		return h->bytes > sizeof(uint64_t) ? NULL : "kinds of no page";
	case AGENT_FRAME_MISMATCH:
	case AGENT_FRAME_EXIT:
		return h->bytes == sizeof(uint64_t) ? NULL : "a frame of another length";
	default:
		return "a frame of no known type";
	}
}

static void take_report(struct agent_port *p, const uint8_t *body)
{
	struct agent_report r;

	memcpy(&r, body, sizeof(r));
	if (r.magic != AGENT_REPORT_MAGIC) {
		make_no_sense(p, "a report that is none");
		return;
	}
	ob_lock(&p->lock);
	p->report = r;
	p->has_report = true;
	ob_unlock(&p->lock);
}

static uint64_t word(const uint8_t *at)
{
	uint64_t v;

	memcpy(&v, at, sizeof(v));
	return v;
}

/* Of n pages from @page on: @kind each, or where that is NULL nobody knows. Another process reads along. */
static void set_kinds(uint8_t *kinds, uint64_t page, const uint8_t *kind, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++)
		__atomic_store_n(&kinds[page + i], kind ? kind[i] : AGENT_PAGE_UNKNOWN,
				 __ATOMIC_RELAXED);
}

/* Checked as a whole, then taken as a whole. */
static void take_kinds(struct agent_port *p, const uint8_t *body, unsigned int bytes)
{
	const struct gmem *m = &p->agent->vm->mem;
	uint64_t page = gmem_gfn_page(m, gfn(word(body))), n = bytes - sizeof(uint64_t);
	const uint8_t *kind = body + sizeof(uint64_t);

	if (page == UINT64_MAX || n > gmem_page_span(m, page)) {
		make_no_sense(p, "kinds of pages outside RAM");
		return;
	}
	for (uint64_t i = 0; i < n; i++)
		if (kind[i] >= AGENT_PAGE_KINDS) {
			make_no_sense(p, "a page of no known kind");
			return;
		}
	ob_lock(&p->lock);
	if (p->agent->kinds)
		set_kinds(p->agent->kinds, page, kind, n);
	ob_unlock(&p->lock);
}

static void do_frame(struct agent_port *p, const struct agent_frame *h, const uint8_t *body,
		     uint64_t *look)
{
	atomic_fetch_add_explicit(&p->frames, 1, memory_order_relaxed);
	switch (h->type) {
	case AGENT_FRAME_REPORT:
		take_report(p, body);
		break;
	case AGENT_FRAME_CHECKED:
		for (unsigned int i = 0; i < h->bytes && !p->deaf; i += sizeof(uint64_t))
			p->deaf = !agent_checked(p->agent, word(body + i), look);
		break;
	case AGENT_FRAME_KINDS:
		take_kinds(p, body, h->bytes);
		break;
	case AGENT_FRAME_MISMATCH:
		p->agent->mismatches++;
		break;
	default: /* AGENT_FRAME_EXIT: there are no others, see check_header */
		p->deaf = true;
		vm_exit(p->agent->vm, (int)(word(body) & 0xff));
		break;
	}
}

/* Take what is still wanted of @want bytes in all. False: more is needed. */
static bool gather(struct agent_port *p, size_t want, const uint8_t **from, size_t *n)
{
	size_t part = OB_MIN(want - p->fill, *n);

	memcpy(p->buf + p->fill, *from, part);
	p->fill += part;
	*from += part;
	*n -= part;
	return p->fill == want;
}

static void port_out(void *arg, const void *bytes, size_t n)
{
	struct agent_port *p = arg;
	const uint8_t *from = bytes;
	uint64_t look = LOOK_PAGES;
	struct agent_frame h;

	while (n && !p->deaf) {
		const char *bad;

		if (p->fill < sizeof(h) && !gather(p, sizeof(h), &from, &n))
			return;
		memcpy(&h, p->buf, sizeof(h));
		bad = check_header(&h);
		if (bad) {
			make_no_sense(p, bad);
			return;
		}
		if (!gather(p, sizeof(h) + h.bytes, &from, &n))
			return;
		p->fill = 0;
		do_frame(p, &h, p->buf + sizeof(h), &look);
	}
}

static void port_opened(void *arg, bool open)
{
	struct agent_port *p = arg;

	(void)open;
	p->fill = 0;
	p->deaf = false;
}

const struct virtio_console_ops agent_port_ops = {.out = port_out, .opened = port_opened};

void agent_port_init(struct agent_port *p, struct agent *a)
{
	memset(p, 0, sizeof(*p));
	p->agent = a;
	ob_mutex_init(&p->lock, OB_RANK_AGENT);
	a->port = p;
}

void agent_port_reset(struct agent_port *p)
{
	ob_lock(&p->lock);
	p->has_report = false;
	if (p->agent->kinds)
		set_kinds(p->agent->kinds, 0, NULL, p->agent->vm->mem.pages);
	ob_unlock(&p->lock);
}

void agent_port_exit(struct agent_port *p)
{
	p->agent->port = NULL;
	ob_mutex_destroy(&p->lock);
}
