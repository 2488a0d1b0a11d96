/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_fake.c: is the fake host like a real one? The same random operations on both: each must
 * return the same, each access must wait on both or on none, for the same reason, and afterwards the
 * page map and the contents must be the same.
 *
 * What the fake is stricter about is not asked for here. And two things are left out of the
 * comparison: reading one page of a file, the kernel maps its neighbours along with it; and it does
 * not always join mappings that are alike (those that have had memory separately stay two), which
 * shows when a call may not cross from one into the next.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "tests/fake_host.h"

#define PAGES  48
#define FRAMES 8
#define STEPS  2000

/* The same things on the two hosts. */
struct side {
	struct ob_host *h;
	hva_t ram, staging;
	int pool, uffd;
};

struct pair {
	struct side real, fake;
	struct ob_host host;
	unsigned int seed, first; /* the state of random numbers, and where it began */
	int step;
	const char *what;
	int stop_fd;
};

static unsigned int rnd(struct pair *t, unsigned int n)
{
	return (unsigned int)rand_r(&t->seed) % n;
}

static hva_t page(const struct side *s, bool staging, unsigned int p)
{
	return hva((staging ? s->staging.v : s->ram.v) + p * OB_PAGE_SIZE);
}

static void open_side(struct side *s, struct ob_host *h)
{
	struct ob_uffd_caps caps;
	uint8_t buf[OB_PAGE_SIZE];

	s->h = h;
	cr_assert(!h->ops->ram_map(h, PAGES * OB_PAGE_SIZE, "ram", &s->ram));
	cr_assert(!h->ops->ram_map(h, PAGES * OB_PAGE_SIZE, "staging", &s->staging));
	s->pool = h->ops->memfd(h, "pool", FRAMES * OB_PAGE_SIZE);
	cr_assert(s->pool >= 0);
	for (unsigned int i = 0; i < FRAMES; i++) {
		memset(buf, (int)(100 + i), sizeof(buf));
		cr_assert(!h->ops->file_write(h, s->pool, buf, sizeof(buf), i * OB_PAGE_SIZE));
	}
	s->uffd = h->ops->uffd_open(h, &caps);
	if (s->uffd == -EPERM || (s->uffd >= 0 && !(caps.move && caps.protect)))
		cr_skip_test("no userfaultfd that moves and protects");
	cr_assert(s->uffd >= 0);
	cr_assert(!h->ops->uffd_register(h, s->uffd, s->staging, PAGES * OB_PAGE_SIZE, false));
}

/* --- accesses, which may wait ----------------------------------------------------------------- */

struct access {
	struct pair *t;
	hva_t at;
	bool write;
	uint8_t v;
};

static void *access_thread(void *arg)
{
	struct access *a = arg;
	volatile uint8_t *p = hva_ptr(a->at);
	uint64_t one = 1;

	if (a->write)
		*p = a->v;
	else
		a->v = *p;
	cr_assert_eq(write(a->t->stop_fd, &one, sizeof(one)), (ssize_t)sizeof(one));
	return NULL;
}

static void answer(struct pair *t, struct side *s, hva_t at, const struct ob_fault *f)
{
	static const _Alignas(4096) uint8_t full[OB_PAGE_SIZE] = {[7] = 77};
	int r;

	if (f->protect)
		r = s->h->ops->uffd_protect(s->h, s->uffd, at, OB_PAGE_SIZE, false);
	else if (t->step % 2)
		r = s->h->ops->uffd_copy(s->h, s->uffd, at, hva_of(full), OB_PAGE_SIZE);
	else
		r = s->h->ops->uffd_zero(s->h, s->uffd, at, OB_PAGE_SIZE);
	cr_assert_eq(r, 0, "seed %u step %d: answer %d", t->first, t->step, r);
}

static bool fake_access(struct pair *t, struct access *a, hva_t at)
{
	if (a->write)
		return fake_host_try_write(t->fake.h, at, &a->v, 1);
	return fake_host_try_read(t->fake.h, at, &a->v, 1);
}

static void access_both(struct pair *t, bool staging, unsigned int p, bool write)
{
	unsigned int off = rnd(t, OB_PAGE_SIZE);
	hva_t at = page(&t->fake, staging, p);
	struct access fake = {.write = write, .v = (uint8_t)rnd(t, 4)}, real = fake;
	struct ob_fault ff, rf;
	pthread_t thread;
	uint64_t one;

	real.t = t;
	real.at = hva(page(&t->real, staging, p).v + off);
	t->what = write ? "write" : "read";
	cr_assert(!pthread_create(&thread, NULL, access_thread, &real));
	for (bool again = true; again;) {
		bool done = fake_access(t, &fake, hva(at.v + off));
		int n = t->real.h->ops->uffd_wait(t->real.h, t->real.uffd, t->stop_fd, &rf, 1);

		again = n == 1;
		cr_assert_eq(done, n == 0, "seed %u step %d page %u: %s", t->first, t->step, p,
			     done ? "waits on the real host only" : "waits on the fake host only");
		if (done)
			break;
		cr_assert_eq(fake_host_faults(t->fake.h, &ff, 1), 1);
		cr_assert_eq(ff.at.v, at.v);
		cr_assert_eq(rf.at.v, page(&t->real, staging, p).v);
		cr_assert_eq(ff.protect, rf.protect, "seed %u step %d", t->first, t->step);
		cr_assert_eq(ff.write, rf.write);
		answer(t, &t->fake, ff.at, &ff);
		answer(t, &t->real, rf.at, &rf);
		cr_assert_eq(fake_host_waiting(t->fake.h), 0);
	}
	pthread_join(thread, NULL);
	cr_assert_eq(read(t->stop_fd, &one, sizeof(one)), (ssize_t)sizeof(one));
	cr_assert_eq(fake.v, real.v, "seed %u step %d: %u and %u", t->first, t->step, fake.v,
		     real.v);
}

/* --- operations ------------------------------------------------------------------------------- */

/* One operation on one side. */
static int64_t operate(struct pair *t, struct side *s, unsigned int what, unsigned int p,
		       unsigned int n, unsigned int arg)
{
	static const _Alignas(4096) uint8_t buf[PAGES * OB_PAGE_SIZE] = {[3] = 3};
	const struct ob_host_ops *ops = s->h->ops;
	hva_t ram = page(s, false, p), staging = page(s, true, p);
	uint64_t size = n * OB_PAGE_SIZE;

	switch (what) {
	case 0:
		t->what = "move out";
		return ops->uffd_move(s->h, s->uffd, staging, ram, size);
	case 1:
		t->what = "move back";
		return ops->uffd_move(s->h, s->uffd, ram, staging, size);
	case 2:
		t->what = "copy";
		return ops->uffd_copy(s->h, s->uffd, arg % 2 ? ram : staging, hva_of(buf), size);
	case 3:
		t->what = "zero";
		return ops->uffd_zero(s->h, s->uffd, arg % 2 ? ram : staging, size);
	case 4:
		t->what = "protect";
		return ops->uffd_protect(s->h, s->uffd, ram, size, arg % 2);
	case 5:
		t->what = "register";
		return ops->uffd_register(s->h, s->uffd, ram, size, true);
	case 6:
		t->what = "unregister";
		return arg % 4 ? 0 : ops->uffd_unregister(s->h, s->uffd, ram, size);
	case 7:
		t->what = "map frames";
		n = OB_MIN(n, FRAMES - arg % FRAMES);
		return ops->map_frames(s->h, ram, n * OB_PAGE_SIZE, s->pool,
				       arg % FRAMES * OB_PAGE_SIZE);
	case 8:
		t->what = "map empty";
		return ops->map_empty(s->h, ram, size, "ram");
	case 9:
		t->what = "discard";
		return ops->discard(s->h, arg % 2 ? ram : staging, size);
	default:
		t->what = "wake";
		return ops->uffd_wake(s->h, s->uffd, ram, size);
	}
}

/* Would the fake host refuse it, being stricter than a real one? */
static bool strict(struct pair *t, unsigned int what, unsigned int p, unsigned int n,
		   unsigned int arg)
{
	struct ob_page view;
	uint64_t off;
	int fd;

	for (unsigned int i = p; i < p + n; i++) {
		hva_t at = page(&t->fake, false, i);

		cr_assert(!t->fake.h->ops->pages(t->fake.h, at, 1, &view));
		if (what <= 1 && !fake_host_registered(t->fake.h, at))
			return true;
		if ((what == 4 || (what >= 2 && what <= 3 && arg % 2)) &&
		    fake_host_file_mapped(t->fake.h, at))
			return true;
		/* Broken off its frame: it must not be dropped. */
		if (what == 9 && arg % 2 && fake_host_file_mapped(t->fake.h, at) &&
		    !fake_host_frame_of(t->fake.h, at, &fd, &off))
			return true;
	}
	return false;
}

/* What the real kernel holds, when it is not just migrating one of the pages: then a moment later. */
static void look(struct pair *t, bool staging, struct ob_page *real)
{
	const struct timespec nap = {.tv_nsec = 1000 * 1000};
	bool moving = true;

	for (int tries = 0; moving && tries < 5000; tries++) {
		if (tries)
			nanosleep(&nap, NULL);
		cr_assert(
			!t->real.h->ops->pages(t->real.h, page(&t->real, staging, 0), PAGES, real));
		moving = false;
		for (unsigned int i = 0; i < PAGES; i++)
			moving |= real[i].swapped;
	}
}

static void compare(struct pair *t, bool staging)
{
	struct ob_page fake[PAGES], real[PAGES];
	uint64_t off;
	int fd;

	cr_assert(!t->fake.h->ops->pages(t->fake.h, page(&t->fake, staging, 0), PAGES, fake));
	look(t, staging, real);
	for (unsigned int i = 0; i < PAGES; i++) {
		hva_t f = page(&t->fake, staging, i), r = page(&t->real, staging, i);

		if (fake_host_frame_of(t->fake.h, f, &fd, &off)) {
			cr_assert(!ob_page_own(&real[i]), "seed %u step %d %s page %u", t->first,
				  t->step, t->what, i);
			continue;
		}
		cr_assert(
			fake[i].present == real[i].present && fake[i].file == real[i].file &&
				fake[i].swapped == real[i].swapped && fake[i].zero == real[i].zero,
			"seed %u step %d, after %s: page %u of %s: present %d %d file %d %d "
			"zero %d %d",
			t->first, t->step, t->what, i, staging ? "staging" : "ram", fake[i].present,
			real[i].present, fake[i].file, real[i].file, fake[i].zero, real[i].zero);
		if (fake[i].present)
			cr_assert(!memcmp(hva_ptr(f), hva_ptr(r), OB_PAGE_SIZE),
				  "seed %u step %d, after %s: page %u of %s", t->first, t->step,
				  t->what, i, staging ? "staging" : "ram");
	}
}

static void like_a_real_one(unsigned int seed)
{
	struct pair t = {.seed = seed, .first = seed};
	unsigned int same_errors = 0, done = 0;
	struct ob_err e;

	cr_assert(!ob_host_linux_init(&t.host, &e), "%s", e.msg);
	open_side(&t.real, &t.host);
	open_side(&t.fake, fake_host_new());
	t.stop_fd = eventfd(0, EFD_CLOEXEC);
	for (t.step = 0; t.step < STEPS; t.step++) {
		unsigned int p = rnd(&t, PAGES), n = 1 + rnd(&t, OB_MIN(6, PAGES - p));
		unsigned int what = rnd(&t, 22), arg = (unsigned int)rand_r(&t.seed);
		int64_t fake, real;

		if (what > 10) {
			access_both(&t, arg % 8 == 0, p, arg / 8 % 3 != 0);
		} else if (!strict(&t, what, p, n, arg)) {
			real = operate(&t, &t.real, what, p, n, arg);
			if (what < 4 && n > 1 && (real == -EINVAL || real == -ENOENT)) {
				n = 1;
				real = operate(&t, &t.real, what, p, n, arg);
			}
			fake = operate(&t, &t.fake, what, p, n, arg);
			cr_assert_eq(fake, real,
				     "seed %u step %d: %s of %u pages at %u: %lld, really %lld",
				     t.first, t.step, t.what, n, p, (long long)fake,
				     (long long)real);
			same_errors += real < 0;
			done += real >= 0;
		}
		compare(&t, false);
		compare(&t, true);
	}
	cr_assert_gt(same_errors, STEPS / 20);
	cr_assert_gt(done, STEPS / 20);
	close(t.real.uffd);
	close(t.stop_fd);
	close(t.real.pool);
	cr_assert(!t.host.ops->unmap(&t.host, t.real.ram, PAGES * OB_PAGE_SIZE));
	cr_assert(!t.host.ops->unmap(&t.host, t.real.staging, PAGES * OB_PAGE_SIZE));
	fake_host_free(t.fake.h);
	ob_host_linux_exit(&t.host);
}

Test(fake_host, is_like_a_real_one, .timeout = 120)
{
	for (unsigned int seed = 1; seed <= 8; seed++)
		like_a_real_one(seed);
}
