/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_index.c: the index between real processes while it grows.
 *
 * A cell is single-stepped through inserts, a claim, a removal, and the growth that these cause; each
 * time that anything in the shared file has changed, a copy of the domain is taken and played on as if
 * the cell had stopped there: the other cell must find all its frames at once, goes on changing the
 * table, and when the death is cleaned up everything is there and growth goes on. In the same way a
 * cell that changes entries is stopped at one instruction after another, the table grows under its
 * hands, and it goes on with what it read before.
 */
#include <criterion/criterion.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ksm/index.h"
#include "tests/domain.h"
#include "tests/rnd.h"

#define FRAMES	  2048 /* so the index begins with 8 buckets, and can have 36 */
#define VICTIM	  0
#define SURVIVOR  1
#define KEPT	  150 /* frames of the survivor, live and in the index */
#define SPARE	  8   /* being filled, in no index yet */
#define DOOMED	  40  /* being filled, in the index, to be given up */
#define HINTS	  300
#define SOME_CELL 1000

struct scene {
	struct ob_host *h;
	int pool, meta;
	struct ksm_domain *coord, *mine; /* mine: the survivor's */
	uint64_t seed, kept_hash[KEPT], doomed_hash[DOOMED], hint_hash[HINTS];
	uint32_t kept, spare, doomed; /* the first of each */
};

/*
 * A table that is fuller than it ever becomes by itself; with @hints below HINTS, only so full that
 * an insert does not make it grow.
 */
static void scene_new(struct scene *s, struct ob_host *h, uint32_t hints)
{
	memset(s, 0, sizeof(*s));
	s->h = h;
	s->seed = 20260611;
	cr_assert_eq(ksm_domain_create(h, FRAMES, 2, &s->pool, &s->meta), 0);
	s->coord = domain_open_as(h, s->pool, s->meta, KSM_NO_CELL);
	s->mine = domain_open_as(h, s->pool, s->meta, SURVIVOR);
	cr_assert_eq(ksm_frame_alloc(s->mine, KEPT, &s->kept), KEPT);
	cr_assert_eq(ksm_frame_alloc(s->mine, SPARE, &s->spare), SPARE);
	cr_assert_eq(ksm_frame_alloc(s->mine, DOOMED, &s->doomed), DOOMED);
	atomic_store(s->mine->grow_lock, SOME_CELL);
	for (uint32_t i = 0; i < KEPT; i++) {
		ksm_frame_publish(s->mine, s->kept + i);
		s->kept_hash[i] = rnd(&s->seed);
		cr_assert_eq(ksm_index_insert_frame(s->mine, s->kept_hash[i], s->kept + i), 0);
	}
	for (uint32_t i = 0; i < DOOMED; i++) {
		s->doomed_hash[i] = rnd(&s->seed);
		cr_assert_eq(ksm_index_insert_frame(s->mine, s->doomed_hash[i], s->doomed + i), 0);
	}
	for (uint32_t i = 0; i < hints; i++) {
		s->hint_hash[i] = rnd(&s->seed);
		cr_assert_eq(ksm_index_hint(s->mine, s->hint_hash[i], i), 0);
	}
	atomic_store(s->mine->grow_lock, 0);
	cr_assert_eq(ksm_index_buckets(s->mine), 8);
}

static void scene_free(struct scene *s)
{
	domain_close(s->mine);
	domain_close(s->coord);
	close(s->pool);
	close(s->meta);
}

static unsigned int hints_found(struct ksm_domain *d, const struct scene *s)
{
	unsigned int n = 0;
	struct ksm_ref ref;

	for (unsigned int i = 0; i < HINTS; i++)
		n += ksm_index_find(d, s->hint_hash[i], &ref) != KSM_EMPTY;
	return n;
}

/* --- death at every instruction -------------------------------------------------------------- */

static void victim_life(struct ksm_domain *d, uint64_t seed)
{
	uint64_t hash[4], n = ksm_index_buckets(d);
	struct ksm_ref ref;
	uint32_t first;

	for (unsigned int i = 0; i < 4; i++)
		hash[i] = rnd(&seed);
	if (ksm_frame_alloc(d, 2, &first) != 2)
		_exit(10);
	for (unsigned int i = 0; i < 3; i++)
		ksm_index_hint(d, hash[i], 5000 + i);
	if (ksm_index_find(d, hash[1], &ref) == KSM_HINT && ksm_index_claim(d, &ref, first))
		ksm_frame_publish(d, first);
	if (ksm_index_insert_frame(d, hash[3], first + 1))
		_exit(11);
	if (ksm_index_find(d, hash[2], &ref) == KSM_HINT)
		ksm_index_rehint(d, &ref, 6000);
	ksm_index_forget(d, hash[0], 5000);
	ksm_index_grow(d);
	if (!ksm_index_remove(d, hash[3], first + 1) || ksm_frame_abandon(d, first + 1, 1))
		_exit(12);
	_exit(ksm_index_buckets(d) > n ? 0 : 13);
}

static pid_t victim_start(const struct scene *s)
{
	pid_t pid = fork();

	if (!pid) {
		struct ksm_domain *d = NULL;

		if (ksm_domain_open(s->h, s->pool, s->meta, VICTIM, ob_arena_new("victim"), &d))
			_exit(20);
		if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
			_exit(21);
		raise(SIGSTOP);
		victim_life(d, s->seed);
	}
	return pid;
}

/* Of the meta file, all but what is not used here. */
static size_t meta_part(const struct ksm_domain *d)
{
	return (size_t)((uintptr_t)d->again - (uintptr_t)d->meta);
}

/* On a copy: the victim has stopped here, and is found dead a little later. */
static void play_death(const struct scene *s, unsigned long at)
{
	struct ksm_domain *coord, *other;
	uint64_t seed = 77 + at, hash = rnd(&seed), n, claimed[2];
	uint32_t gone = s->doomed + (uint32_t)(at % DOOMED);
	unsigned int had, nclaimed = 0;
	struct ksm_ref ref;
	int pool, meta;

	cr_assert_eq(ksm_domain_create(s->h, FRAMES, 2, &pool, &meta), 0);
	cr_assert_eq(s->h->ops->file_write(s->h, meta, s->coord->meta, meta_part(s->coord), 0), 0);
	coord = domain_open_as(s->h, pool, meta, KSM_NO_CELL);
	other = domain_open_as(s->h, pool, meta, SURVIVOR);

	for (uint32_t i = 0; i < KEPT; i++)
		cr_assert(domain_reaches(other, s->kept_hash[i], s->kept + i), "step %lu: frame %u",
			  at, i);
	had = hints_found(other, s);
	for (unsigned int i = 0; i < HINTS && nclaimed < 2; i++) {
		uint64_t h = s->hint_hash[(i + at * 7) % HINTS];

		if (ksm_index_find(other, h, &ref) == KSM_HINT &&
		    ksm_index_claim(other, &ref, s->spare + nclaimed))
			claimed[nclaimed++] = h;
	}
	cr_assert_eq(nclaimed, 2);
	cr_assert_eq(ksm_index_insert_frame(other, hash, s->spare + 2), 0);
	cr_assert(ksm_index_remove(other, s->doomed_hash[at % DOOMED], gone));
	cr_assert_eq(ksm_frame_abandon(other, gone, 1), 0);

	ksm_domain_cell_died(coord, VICTIM);
	cr_assert_eq(atomic_load(coord->grow_lock), 0, "step %lu: the lock is left", at);
	for (uint32_t i = 0; i < KEPT; i++)
		cr_assert(domain_reaches(other, s->kept_hash[i], s->kept + i), "step %lu: frame %u",
			  at, i);
	for (uint32_t i = 0; i < DOOMED; i++)
		cr_assert_eq(domain_reaches(other, s->doomed_hash[i], s->doomed + i),
			     s->doomed + i != gone, "step %lu: frame %u that is given up", at, i);
	for (uint32_t i = 0; i < 2; i++)
		cr_assert(domain_reaches(other, claimed[i], s->spare + i), "step %lu: a claim", at);
	cr_assert(domain_reaches(other, hash, s->spare + 2), "step %lu", at);
	cr_assert_geq(hints_found(other, s) + 3, had, "step %lu: hints were lost", at);
	for (uint64_t i = 0; i < ksm_index_buckets(coord) * KSM_BUCKET; i++) {
		uint64_t v = ksm_entry_read(coord, i);

		cr_assert(ksm_entry_kind(v) != KSM_FRAME || ksm_entry_is_frame(coord, v),
			  "step %lu: an entry of a frame that is free", at);
	}
	n = ksm_index_buckets(coord);
	for (unsigned int i = 0; i < 300; i++)
		ksm_index_hint(other, rnd(&seed), i);
	cr_assert_geq(ksm_index_buckets(coord), n + 3, "step %lu: growth has ended", at);
	for (uint32_t i = 0; i < KEPT; i++)
		cr_assert(domain_reaches(other, s->kept_hash[i], s->kept + i));
	domain_close(other);
	domain_close(coord);
	close(pool);
	close(meta);
}

Test(index_processes, death_at_every_instruction, .timeout = 120)
{
	unsigned long steps = 0, deaths = 0;
	struct ob_host h;
	struct ob_err e;
	struct scene s;
	size_t part;
	void *last;
	int status;
	pid_t pid;

	cr_assert_eq(ob_host_linux_init(&h, &e), 0, "%s", e.msg);
	scene_new(&s, &h, HINTS);
	part = meta_part(s.coord);
	pid = victim_start(&s);
	cr_assert_gt(pid, 0);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 21)
		cr_skip_test("ptrace is not allowed here");
	cr_assert(WIFSTOPPED(status), "status %x", status);
	last = malloc(part);
	memcpy(last, s.coord->meta, part);
	while (WIFSTOPPED(status)) {
		int sig = WSTOPSIG(status);

		cr_assert(sig == SIGTRAP || sig == SIGSTOP, "signal %d", sig);
		cr_assert_eq(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL), 0);
		cr_assert_eq(waitpid(pid, &status, 0), pid);
		steps++;
		if (!memcmp(last, s.coord->meta, part))
			continue;
		memcpy(last, s.coord->meta, part);
		play_death(&s, steps);
		deaths++;
	}
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", status);
	cr_log_info("%lu instructions, %lu different deaths, %llu buckets", steps, deaths,
		    (unsigned long long)ksm_index_buckets(s.coord));
	cr_assert_geq(deaths, 100, "the steps were not seen: %lu of %lu", deaths, steps);
	free(last);
	scene_free(&s);
	ob_host_linux_exit(&h);
}

/* --- growth at every instruction of a change ------------------------------------------------- */

enum change { CLAIM, REHINT, INSERT, HINT, REMOVE, FIND, CHANGES };

/* A stop for the tracer, with no library code round it that would have to be stepped through. */
static inline void stop_here(void)
{
	__asm__ volatile("int3" ::: "memory");
}

static void make_change(struct ksm_domain *d, enum change what, uint64_t hash, uint32_t frame)
{
	struct ksm_ref ref;
	bool ok = true;

	if (what == CLAIM || what == REHINT)
		ok = ksm_index_find(d, hash, &ref) == KSM_HINT;
	if (!ok)
		_exit(10);
	stop_here();
	switch (what) {
	case CLAIM:
		ok = ksm_index_claim(d, &ref, frame);
		break;
	case REHINT:
		ok = ksm_index_rehint(d, &ref, 4321);
		break;
	case INSERT:
		ok = !ksm_index_insert_frame(d, hash, frame);
		break;
	case HINT:
		ok = !ksm_index_hint(d, hash, 1234);
		break;
	case REMOVE:
		ok = ksm_index_remove(d, hash, frame);
		break;
	case FIND:
		ok = ksm_index_find(d, hash, &ref) == KSM_FRAME;
		break;
	case CHANGES:
		break;
	}
	stop_here();
	_exit(ok ? 1 : 2);
}

/* Must what is inserted now go, when there is one bucket more, whichever place it gets? */
static bool both_moved(const struct ksm_domain *d, uint64_t hash)
{
	uint64_t n = ksm_index_buckets(d), was[2], is[2];

	ksm_index_places(d, n, 0, hash, was);
	ksm_index_places(d, n + 1, 0, hash, is);
	return was[0] != is[0] && was[1] != is[1];
}

/* The next of @hash from @i on that is found as such an entry, and must go. */
static unsigned int next_moved(struct ksm_domain *d, const uint64_t *hash, unsigned int i,
			       enum ksm_kind kind)
{
	for (;; i++) {
		struct ksm_ref ref;
		uint64_t is[2];

		if (ksm_index_find(d, hash[i], &ref) != kind)
			continue;
		ksm_index_places(d, ksm_index_buckets(d) + 1, 0, hash[i], is);
		if (ref.slot / KSM_BUCKET != is[0] && ref.slot / KSM_BUCKET != is[1])
			return i;
	}
}

struct outcome {
	bool ended, refused;
	bool done; /* what the change said */
};

/* The change does @steps instructions, then the table grows, then the change goes on. */
static struct outcome grow_under(struct ob_host *h, enum change what, unsigned long steps)
{
	struct outcome o = {false, false, false};
	uint64_t hash = 0, fresh;
	struct ksm_ref ref = {0, 0};
	struct scene s;
	uint32_t frame;
	int status;
	pid_t pid;

	scene_new(&s, h, HINTS - 60);
	frame = s.spare;
	if (what == CLAIM || what == REHINT) {
		hash = s.hint_hash[next_moved(s.mine, s.hint_hash, 0, KSM_HINT)];
	} else if (what == REMOVE) {
		unsigned int i = next_moved(s.mine, s.doomed_hash, 0, KSM_FRAME);

		hash = s.doomed_hash[i];
		frame = s.doomed + i;
	} else if (what == FIND) {
		unsigned int i = next_moved(s.mine, s.kept_hash, 0, KSM_FRAME);

		hash = s.kept_hash[i];
		frame = s.kept + i;
	} else {
		do
			hash = rnd(&s.seed);
		while (!both_moved(s.mine, hash));
	}
	pid = fork();
	if (!pid) {
		if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
			_exit(21);
		make_change(s.mine, what, hash, frame);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	o.refused = WIFEXITED(status) && WEXITSTATUS(status) == 21;
	for (unsigned long i = 0; i < steps && WIFSTOPPED(status) && !o.ended; i++) {
		struct user_regs_struct regs;

		cr_assert_eq(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL), 0);
		cr_assert_eq(waitpid(pid, &status, 0), pid);
		cr_assert_eq(ptrace(PTRACE_GETREGS, pid, NULL, &regs), 0);
		o.ended = (ptrace(PTRACE_PEEKTEXT, pid, (void *)(uintptr_t)regs.rip, NULL) &
			   0xff) == 0xcc;
	}
	/* It may have grown the table itself by now. */
	fresh = ksm_index_buckets(s.mine);
	if (fresh == 8)
		ksm_index_grow(s.mine);
	while (WIFSTOPPED(status)) {
		cr_assert_eq(WSTOPSIG(status), SIGTRAP);
		cr_assert_eq(ptrace(PTRACE_CONT, pid, NULL, NULL), 0);
		cr_assert_eq(waitpid(pid, &status, 0), pid);
	}
	if (!o.refused) {
		cr_assert(WIFEXITED(status) && WEXITSTATUS(status) >= 1 && WEXITSTATUS(status) <= 2,
			  "change %d, step %lu: status %x", what, steps, status);
		o.done = WEXITSTATUS(status) == 1;
		cr_assert_geq(ksm_index_buckets(s.mine), 9, "change %d, step %lu", what, steps);
		if (what == REMOVE)
			cr_assert_not(domain_reaches(s.mine, hash, frame), "step %lu", steps);
		else if (what == HINT || what == REHINT)
			cr_assert_neq(ksm_index_find(s.mine, hash, &ref), KSM_EMPTY, "%lu", steps);
		else if (o.done)
			cr_assert(domain_reaches(s.mine, hash, frame), "change %d, step %lu", what,
				  steps);
		cr_assert(o.done || what == CLAIM || what == REHINT, "change %d, step %lu", what,
			  steps);
		for (uint32_t i = 0; i < KEPT; i++)
			cr_assert(domain_reaches(s.mine, s.kept_hash[i], s.kept + i));
	}
	scene_free(&s);
	return o;
}

/* @stride: prime, and not the length of a loop, so that each instruction of a loop is met in some
 * round. */
static void grows_under(enum change what, unsigned long stride)
{
	unsigned long done = 0, n = 0;
	struct ob_host h;
	struct ob_err e;

	cr_assert_eq(ob_host_linux_init(&h, &e), 0, "%s", e.msg);
	for (unsigned long step = 0;; step += stride, n++) {
		struct outcome o = grow_under(&h, what, step);

		if (o.refused)
			cr_skip_test("ptrace is not allowed here");
		done += o.done;
		if (o.ended)
			break;
	}
	cr_log_info("change %d: %lu times, done %lu times", what, n, done);
	cr_assert_gt(n, 10);
	cr_assert_gt(done, 0);
	ob_host_linux_exit(&h);
}

Test(index_processes, grows_under_a_claim, .timeout = 120)
{
	grows_under(CLAIM, 3);
}

Test(index_processes, grows_under_a_rehint, .timeout = 120)
{
	grows_under(REHINT, 3);
}

Test(index_processes, grows_under_an_insert, .timeout = 120)
{
	grows_under(INSERT, 29);
}

Test(index_processes, grows_under_a_hint, .timeout = 120)
{
	grows_under(HINT, 29);
}

Test(index_processes, grows_under_a_removal, .timeout = 120)
{
	grows_under(REMOVE, 53);
}

Test(index_processes, grows_under_a_lookup, .timeout = 120)
{
	grows_under(FIND, 29);
}

/* --- changes at every store of a growth ------------------------------------------------------- */

/* What the survivor does while the other is in the middle of a growth: all that has to move. */
struct changes {
	uint64_t claimed[3], inserted, hinted, rehinted;
	uint32_t gone; /* of the doomed: its number */
};

static void choose(struct scene *s, struct changes *c)
{
	unsigned int i = 0;

	for (unsigned int k = 0; k < 3; k++, i++) {
		i = next_moved(s->mine, s->hint_hash, i, KSM_HINT);
		c->claimed[k] = s->hint_hash[i];
	}
	c->rehinted = s->hint_hash[next_moved(s->mine, s->hint_hash, i, KSM_HINT)];
	c->gone = next_moved(s->mine, s->doomed_hash, 0, KSM_FRAME);
	do
		c->inserted = rnd(&s->seed);
	while (!both_moved(s->mine, c->inserted));
	do
		c->hinted = rnd(&s->seed);
	while (!both_moved(s->mine, c->hinted));
}

static void change_all(struct scene *s, struct changes *c)
{
	struct ksm_ref ref;

	for (unsigned int k = 0; k < 3; k++) {
		cr_assert_eq(ksm_index_find(s->mine, c->claimed[k], &ref), KSM_HINT);
		cr_assert(ksm_index_claim(s->mine, &ref, s->spare + k));
	}
	cr_assert_eq(ksm_index_insert_frame(s->mine, c->inserted, s->spare + 3), 0);
	cr_assert_eq(ksm_index_hint(s->mine, c->hinted, 1234), 0);
	cr_assert_eq(ksm_index_find(s->mine, c->rehinted, &ref), KSM_HINT);
	cr_assert(ksm_index_rehint(s->mine, &ref, 4321));
	cr_assert(ksm_index_remove(s->mine, s->doomed_hash[c->gone], s->doomed + c->gone));
	cr_assert_eq(ksm_frame_abandon(s->mine, s->doomed + c->gone, 1), 0);
}

static void check_changes(struct scene *s, const struct changes *c, unsigned int at)
{
	struct ksm_ref ref;

	cr_assert_eq(atomic_load(s->mine->grow_lock), 0);
	for (unsigned int k = 0; k < 3; k++)
		cr_assert(domain_reaches(s->mine, c->claimed[k], s->spare + k),
			  "store %u: claim %u", at, k);
	cr_assert(domain_reaches(s->mine, c->inserted, s->spare + 3), "store %u: what was inserted",
		  at);
	cr_assert_eq(ksm_index_find(s->mine, c->hinted, &ref), KSM_HINT, "store %u", at);
	cr_assert_eq(ksm_index_find(s->mine, c->rehinted, &ref), KSM_HINT, "store %u", at);
	for (uint32_t i = 0; i < DOOMED; i++)
		cr_assert_eq(domain_reaches(s->mine, s->doomed_hash[i], s->doomed + i),
			     i != c->gone, "store %u", at);
	for (uint32_t i = 0; i < KEPT; i++)
		cr_assert(domain_reaches(s->mine, s->kept_hash[i], s->kept + i), "store %u", at);
}

/* Has anything changed in the header or in the first 9 buckets? Keeps them in @last. */
static bool index_changed(const struct ksm_domain *d, unsigned char *last)
{
	const size_t sizes[2] = {OB_PAGE_SIZE, 9 * KSM_BUCKET * sizeof(uint64_t)};
	const void *parts[2] = {d->meta, (const void *)(uintptr_t)d->index};
	bool changed = false;

	for (unsigned int i = 0; i < 2; last += sizes[i++]) {
		if (!memcmp(last, parts[i], sizes[i]))
			continue;
		memcpy(last, parts[i], sizes[i]);
		changed = true;
	}
	return changed;
}

/* The growth is stopped after its store number @at, and goes on after the changes, or @dies. False:
 * it has not so many. */
static bool change_under(struct ob_host *h, unsigned int at, bool dies)
{
	unsigned char last[OB_PAGE_SIZE + 9 * KSM_BUCKET * sizeof(uint64_t)] = {0};
	unsigned int stores = 0;
	struct scene s;
	struct changes c;
	int status;
	pid_t pid;

	scene_new(&s, h, HINTS - 60);
	choose(&s, &c);
	pid = fork();
	if (!pid) {
		struct ksm_domain *d = NULL;

		if (ksm_domain_open(h, s.pool, s.meta, VICTIM, ob_arena_new("victim"), &d))
			_exit(20);
		if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
			_exit(21);
		stop_here();
		ksm_index_grow(d);
		_exit(0);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 21)
		cr_skip_test("ptrace is not allowed here");
	index_changed(s.coord, last);
	while (WIFSTOPPED(status) && stores < at) {
		cr_assert_eq(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL), 0);
		cr_assert_eq(waitpid(pid, &status, 0), pid);
		stores += index_changed(s.coord, last);
	}
	if (stores == at) {
		change_all(&s, &c);
		if (dies)
			kill(pid, SIGKILL);
		else
			cr_assert_eq(ptrace(PTRACE_CONT, pid, NULL, NULL), 0);
		cr_assert_eq(waitpid(pid, &status, 0), pid);
		cr_assert(dies ? WIFSIGNALED(status) : WIFEXITED(status) && !WEXITSTATUS(status),
			  "status %x", status);
		if (dies)
			ksm_domain_cell_died(s.coord, VICTIM);
		check_changes(&s, &c, at);
		/* And once more: nothing was left behind that growth could stumble over. */
		ksm_index_grow(s.mine);
		check_changes(&s, &c, at);
	}
	scene_free(&s);
	return stores == at;
}

static void changes_under(bool dies)
{
	unsigned int n = 0;
	struct ob_host h;
	struct ob_err e;

	cr_assert_eq(ob_host_linux_init(&h, &e), 0, "%s", e.msg);
	for (unsigned int at = 1; change_under(&h, at, dies); at += 19)
		n++;
	cr_log_info("stopped at %u stores", n);
	cr_assert_gt(n, 4);
	ob_host_linux_exit(&h);
}

Test(index_processes, changes_under_a_growth, .timeout = 120)
{
	changes_under(false);
}

Test(index_processes, changes_under_a_growth_that_dies, .timeout = 120)
{
	changes_under(true);
}
