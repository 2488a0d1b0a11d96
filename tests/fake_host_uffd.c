/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fake_host_uffd.c: userfaultfd, as Linux does it (Documentation/admin-guide/mm/userfaultfd.rst and
 * mm/userfaultfd.c), of pages that are records.
 *
 * Whoever waits is a record, too, from the access that could not be until somebody wakes it; a fault
 * is told of once. An access that is tried again while its record is there is the same thread, still
 * asleep. So a wake-up that was forgotten shows: the record stays.
 */
#include "tests/fake_host_int.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

void fake_wait_for(struct fake_host *f, uint64_t at, bool write, bool protect)
{
	for (unsigned int i = 0; i < f->nwaiters; i++)
		if (f->waiter[i].at == at && f->waiter[i].write == write &&
		    f->waiter[i].protect == protect)
			return;
	f->waiter = realloc(f->waiter, (f->nwaiters + 1) * sizeof(*f->waiter));
	OB_ASSERT(f->waiter);
	f->waiter[f->nwaiters++] =
		(struct fake_waiter){.at = at, .write = write, .protect = protect};
}

void fake_wake(struct fake_host *f, uint64_t at, uint64_t size)
{
	unsigned int left = 0;

	for (unsigned int i = 0; i < f->nwaiters; i++)
		if (f->waiter[i].at - at >= size)
			f->waiter[left++] = f->waiter[i];
	f->nwaiters = left;
}

/* The pages of [at, at + size) when they are one mapping, registered with @fd; else NULL. */
static struct fake_map *one_vma(struct fake_host *f, int fd, hva_t at, uint64_t size,
				uint64_t *first)
{
	struct fake_map *m = fake_range(f, at, size, first);

	if (!m || m->page[*first].uffd != (uint32_t)(fd - FIRST_UFFD) + 1)
		return NULL;
	for (uint64_t i = 1; i < size / OB_PAGE_SIZE; i++)
		if (!fake_same_vma(&m->page[*first + i - 1], &m->page[*first + i]))
			return NULL;
	return m;
}

int fake_uffd_open(struct ob_host *h, struct ob_uffd_caps *caps)
{
	struct fake_host *f = fake_of(h);
	int rc = fake_enter(f, FAKE_UFFD_OPEN);

	if (rc)
		return rc;
	*caps = f->caps;
	return fake_leave(f, FAKE_UFFD_OPEN, FIRST_UFFD + (int)f->nuffds++);
}

static bool fd_ok(const struct fake_host *f, int fd)
{
	return fd >= FIRST_UFFD && (unsigned int)(fd - FIRST_UFFD) < f->nuffds;
}

/* @uffd 0: not registered any more. Mappings that this makes too many: -ENOMEM, nothing done. */
static int set_registered(struct fake_host *f, struct fake_map *m, uint64_t first, uint64_t n,
			  uint32_t uffd, bool wp)
{
	uint64_t before = fake_vma_starts(m, first, n), more;
	struct fake_page *old = fake_calloc(n, sizeof(*old));

	for (uint64_t i = 0; i < n; i++) {
		fake_reconcile(f, m, first + i);
		old[i] = m->page[first + i];
		m->page[first + i].uffd = uffd;
		m->page[first + i].wp_mode = wp;
		m->page[first + i].protect = old[i].protect && wp;
	}
	more = fake_vma_starts(m, first, n) - before;
	if ((int64_t)more > 0 && f->vmas + more + f->vma_others > f->vma_limit) {
		memcpy(&m->page[first], old, n * sizeof(*old));
		free(old);
		return -ENOMEM;
	}
	f->vmas += more;
	for (uint64_t i = first; i < first + n; i++)
		if (!m->page[i].pfn)
			fake_show(f, m, i);
	free(old);
	return 0;
}

int fake_uffd_register(struct ob_host *h, int fd, hva_t at, uint64_t size, bool protect)
{
	struct fake_host *f = fake_of(h);
	uint64_t first, n = size / OB_PAGE_SIZE, limit;
	uint32_t me = (uint32_t)(fd - FIRST_UFFD) + 1;
	int rc = fake_enter_partly(f, FAKE_UFFD_REGISTER, &limit);
	struct fake_map *m;

	if (rc)
		return rc;
	m = fd_ok(f, fd) && (f->caps.protect || !protect) ? fake_range(f, at, size, &first) : NULL;
	if (!m)
		return fake_leave(f, FAKE_UFFD_REGISTER, -EINVAL);
	for (uint64_t i = first; i < first + n; i++)
		if (m->page[i].uffd && m->page[i].uffd != me)
			return fake_leave(f, FAKE_UFFD_REGISTER, -EBUSY);
	rc = set_registered(f, m, first, OB_MIN(n, limit), me, protect);
	if (!rc && limit < n)
		rc = -f->fail_err[FAKE_UFFD_REGISTER];
	return fake_leave(f, FAKE_UFFD_REGISTER, rc);
}

int fake_uffd_unregister(struct ob_host *h, int fd, hva_t at, uint64_t size)
{
	struct fake_host *f = fake_of(h);
	uint64_t first, n = size / OB_PAGE_SIZE, limit;
	int rc = fake_enter_partly(f, FAKE_UFFD_UNREGISTER, &limit);
	struct fake_map *m;

	if (rc)
		return rc;
	m = fd_ok(f, fd) ? fake_range(f, at, size, &first) : NULL;
	if (!m)
		return fake_leave(f, FAKE_UFFD_UNREGISTER, -EINVAL);
	rc = set_registered(f, m, first, OB_MIN(n, limit), 0, false);
	if (!rc)
		fake_wake(f, at.v, OB_MIN(n, limit) * OB_PAGE_SIZE);
	if (!rc && limit < n)
		rc = -f->fail_err[FAKE_UFFD_UNREGISTER];
	return fake_leave(f, FAKE_UFFD_UNREGISTER, rc);
}

/* One page; -errno when it cannot be. */
static int move_page(struct fake_host *f, struct fake_map *to, uint64_t d, struct fake_map *from,
		     uint64_t s)
{
	struct fake_page *dst = &to->page[d], *src = &from->page[s];

	fake_reconcile(f, to, d);
	fake_reconcile(f, from, s);
	/* What is there and not here has been moved, whoever did it (host_uffd.c says why). */
	if (fake_populated(dst))
		return fake_populated(src) ? -EEXIST : 0;
	if (!fake_populated(src))
		return -ENOENT;
	if (src->pinned)
		return -EBUSY;
	dst->pfn = src->pfn;
	dst->present = src->present;
	dst->swapped = src->swapped;
	dst->protect = false; /* lost on the way, as on Linux */
	src->pfn = 0;
	src->present = src->swapped = src->migrating = src->protect = false;
	if (to->raw) {
		memcpy(fake_data(to, d), fake_data(from, s), OB_PAGE_SIZE);
		fake_show(f, from, s);
	}
	return 0;
}

int64_t fake_uffd_move(struct ob_host *h, int fd, hva_t dst, hva_t src, uint64_t size)
{
	struct fake_host *f = fake_of(h);
	struct fake_map *to, *from;
	uint64_t d, s, done = 0, limit;
	int rc = fake_enter_partly(f, FAKE_UFFD_MOVE, &limit);

	if (rc)
		return rc;
	to = fd_ok(f, fd) && f->caps.move ? one_vma(f, fd, dst, size, &d) : NULL;
	from = to ? one_vma(f, fd, src, size, &s) : NULL;
	if (!from || to->page[d].file || from->page[s].file || !to->raw != !from->raw)
		rc = -EINVAL;
	for (; !rc && done < size / OB_PAGE_SIZE; done += !rc)
		rc = done == limit ? -f->fail_err[FAKE_UFFD_MOVE]
				   : move_page(f, to, d + done, from, s + done);
	fake_wake(f, dst.v, done * OB_PAGE_SIZE);
	fake_leave(f, FAKE_UFFD_MOVE, rc);
	return done ? (int64_t)(done * OB_PAGE_SIZE) : rc;
}

/* The kernel reads the source by its address. If that is missing, it waits. */
static void check_source(struct fake_host *f, hva_t src, uint64_t size)
{
	for (uint64_t at = src.v & ~OB_PAGE_MASK; at < src.v + size; at += OB_PAGE_SIZE) {
		uint64_t i;
		struct fake_map *m = fake_range(f, hva(at), OB_PAGE_SIZE, &i);

		if (!m)
			continue;
		fake_reconcile(f, m, i);
		OB_ASSERT(!fake_missing(f, &m->page[i]));
	}
}

/* Fill pages that are missing, from @src or (0) with the zero page. */
static int fill(struct fake_host *f, enum fake_op op, int fd, hva_t dst, uint64_t src,
		uint64_t size, uint64_t limit)
{
	uint64_t first, done = 0;
	struct fake_map *m = fd_ok(f, fd) ? one_vma(f, fd, dst, size, &first) : NULL;
	int rc = m ? 0 : -ENOENT;

	if (m && m->page[first].file)
		rc = -EINVAL; /* here a real host would hide the frame without telling anybody */
	for (; !rc && done < size / OB_PAGE_SIZE; done += !rc) {
		struct fake_page *p = &m->page[first + done];

		fake_reconcile(f, m, first + done);
		if (done == limit) {
			rc = -f->fail_err[op];
		} else if (fake_populated(p)) {
			rc = -EEXIST;
		} else if (src) {
			fake_break(f, p);
			memcpy(fake_data(m, first + done), hva_ptr(hva(src + done * OB_PAGE_SIZE)),
			       OB_PAGE_SIZE);
		} else {
			p->present = true;
			fake_show(f, m, first + done);
		}
	}
	fake_wake(f, dst.v, done * OB_PAGE_SIZE);
	return rc;
}

int fake_uffd_copy(struct ob_host *h, int fd, hva_t dst, hva_t src, uint64_t size)
{
	struct fake_host *f = fake_of(h);
	uint64_t limit;
	int rc = fake_enter_partly(f, FAKE_UFFD_COPY, &limit);

	if (rc)
		return rc;
	check_source(f, src, size);
	rc = fill(f, FAKE_UFFD_COPY, fd, dst, src.v, size, limit);
	return fake_leave(f, FAKE_UFFD_COPY, rc);
}

int fake_uffd_zero(struct ob_host *h, int fd, hva_t dst, uint64_t size)
{
	struct fake_host *f = fake_of(h);
	uint64_t limit;
	int rc = fake_enter_partly(f, FAKE_UFFD_ZERO, &limit);

	if (rc)
		return rc;
	rc = fill(f, FAKE_UFFD_ZERO, fd, dst, 0, size, limit);
	return fake_leave(f, FAKE_UFFD_ZERO, rc);
}

int fake_uffd_protect(struct ob_host *h, int fd, hva_t at, uint64_t size, bool on)
{
	struct fake_host *f = fake_of(h);
	uint64_t first, done = 0, limit;
	int rc = fake_enter_partly(f, FAKE_UFFD_PROTECT, &limit);
	struct fake_map *m;

	if (rc)
		return rc;
	m = fd_ok(f, fd) ? fake_range(f, at, size, &first) : NULL;
	if (!m)
		rc = -ENOENT;
	/* Mapping by mapping: one that is not registered so ends it, with those before it done. */
	for (; !rc && done < size / OB_PAGE_SIZE; done += !rc) {
		struct fake_page *p = &m->page[first + done];

		fake_reconcile(f, m, first + done);
		if (done == limit)
			rc = -f->fail_err[FAKE_UFFD_PROTECT];
		else if (!p->wp_mode)
			rc = -ENOENT;
		else if (p->file)
			rc = -EINVAL; /* a real host would show it as swapped from now on */
		else
			p->protect = on && fake_populated(p);
	}
	if (!on && !rc)
		fake_wake(f, at.v, size);
	return fake_leave(f, FAKE_UFFD_PROTECT, rc);
}

int fake_uffd_wake(struct ob_host *h, int fd, hva_t at, uint64_t size)
{
	struct fake_host *f = fake_of(h);
	int rc = fake_enter(f, FAKE_UFFD_WAKE);

	if (rc)
		return rc;
	if (!fd_ok(f, fd) || (at.v | size) & OB_PAGE_MASK || !size)
		return fake_leave(f, FAKE_UFFD_WAKE, -EINVAL);
	fake_wake(f, at.v, size);
	return fake_leave(f, FAKE_UFFD_WAKE, 0);
}

static unsigned int read_faults(struct fake_host *f, struct ob_fault *out, unsigned int max)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < f->nwaiters && n < max; i++) {
		struct fake_waiter *w = &f->waiter[i];

		if (w->told)
			continue;
		w->told = true;
		out[n++] = (struct ob_fault){
			.at = hva(w->at), .write = w->write, .protect = w->protect};
	}
	return n;
}

int fake_uffd_wait(struct ob_host *h, int fd, int stop_fd, struct ob_fault *out, unsigned int max)
{
	struct pollfd p = {.fd = stop_fd, .events = POLLIN};
	struct fake_host *f = fake_of(h);

	(void)fd;
	for (;;) {
		int rc = fake_enter(f, FAKE_UFFD_WAIT);
		unsigned int n;

		if (rc)
			return rc;
		n = read_faults(f, out, max);
		fake_leave(f, FAKE_UFFD_WAIT, 0);
		if (n)
			return (int)n;
		if (poll(&p, 1, 1) > 0)
			return 0;
	}
}

/* --- what tests call -------------------------------------------------------------------------- */

unsigned int fake_host_faults(struct ob_host *h, struct ob_fault *out, unsigned int max)
{
	struct fake_host *f = fake_of(h);
	unsigned int n;

	pthread_mutex_lock(&f->lock);
	n = read_faults(f, out, max);
	pthread_mutex_unlock(&f->lock);
	return n;
}

unsigned int fake_host_waiting(struct ob_host *h)
{
	struct fake_host *f = fake_of(h);
	unsigned int n;

	pthread_mutex_lock(&f->lock);
	n = f->nwaiters;
	pthread_mutex_unlock(&f->lock);
	return n;
}

void fake_host_uffd_caps(struct ob_host *h, struct ob_uffd_caps caps)
{
	struct fake_host *f = fake_of(h);

	pthread_mutex_lock(&f->lock);
	f->caps = caps;
	pthread_mutex_unlock(&f->lock);
}
