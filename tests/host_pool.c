/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_pool.c: a sharing domain between real processes that die.
 *
 * The first test cuts a cell off at every instruction: it single-steps a process through the whole
 * life of a frame, and each time that anything in the shared files has changed, takes a copy of the
 * domain and plays on it what follows when the cell is dead. So every state that a death can leave
 * behind is looked at, once, and none is left to chance. In the same way a cell that wants a frame
 * and the coordinator that wants it gone meet at every instruction of either. The last one is
 * chance: several processes merge and let go as fast as they can, and are killed at any time.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ksm/domain.h"
#include "tests/domain.h"
#include "tests/rnd.h"

static void content(uint64_t *page, uint64_t c)
{
	for (unsigned int i = 0; i < OB_PAGE_SIZE / 8; i++)
		page[i] = (c + 1) * 0x9e3779b97f4a7c15ULL + i;
}

static struct ksm_domain_stats stats(struct ksm_domain *d)
{
	struct ksm_domain_stats s;

	cr_assert_eq(ksm_domain_stats(d, &s), 0);
	return s;
}

/* --- death at every instruction -------------------------------------------------------------- */

#define STEP_FRAMES 64
#define VICTIM	    0
#define SURVIVOR    1

struct scene {
	struct ob_host *h;
	int pool, meta;
	struct ksm_domain *coord, *survivor;
	uint64_t kept_hash; /* of the frame that the survivor holds */
	uint32_t kept;
};

/* What the victim does from its first to its last instruction that count. */
static void victim_life(struct ksm_domain *d, const struct scene *s, const uint64_t (*page)[512],
			const uint64_t *hash)
{
	struct ksm_ref ref;
	uint32_t first, n;

	ksm_index_hint(d, hash[0], 1);
	ksm_index_hint(d, hash[1], 2);
	n = ksm_frame_alloc(d, 3, &first);
	if (n != 3)
		_exit(10);
	/* One is claimed before it is written, one indexed after it is live, one not needed. */
	if (ksm_index_find(d, hash[0], &ref) != KSM_HINT || !ksm_index_claim(d, &ref, first))
		_exit(11);
	d->host->ops->file_write(d->host, d->pool_fd, page, 2 * OB_PAGE_SIZE, first * OB_PAGE_SIZE);
	ksm_frame_publish(d, first);
	ksm_frame_publish(d, first + 1);
	if (ksm_index_insert_frame(d, hash[1], first + 1))
		_exit(12);
	if (ksm_frame_abandon(d, first + 2, 1))
		_exit(13);
	/* A frame of the other cell, twice; and one that is not live. */
	if (ksm_index_find(d, s->kept_hash, &ref) != KSM_FRAME || ksm_ref_payload(&ref) != s->kept)
		_exit(14);
	if (ksm_frame_get(d, s->kept) || ksm_frame_get(d, s->kept))
		_exit(15);
	if (ksm_frame_get(d, first + 2) != -EAGAIN)
		_exit(16);
	ksm_frame_put(d, s->kept);
	ksm_frame_put(d, s->kept);
	ksm_frame_put(d, first);
	_exit(0);
}

static pid_t victim_start(const struct scene *s)
{
	pid_t pid = fork();

	if (!pid) {
		static uint64_t page[2][512];
		uint64_t hash[2];
		struct ksm_domain *d = NULL;

		if (ksm_domain_open(s->h, s->pool, s->meta, VICTIM, ob_arena_new("victim"), &d))
			_exit(20);
		for (unsigned int i = 0; i < 2; i++) {
			content(page[i], i);
			hash[i] = ksm_hash(d, page[i]);
		}
		if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
			_exit(21);
		raise(SIGSTOP);
		victim_life(d, s, page, hash);
	}
	return pid;
}

/* A copy of the domain as it is now: same sizes, same bytes, holes where holes are. */
static void domain_copy(const struct scene *s, int *pool, int *meta)
{
	struct ob_host *h = s->h;
	uint64_t page[512];

	cr_assert_eq(ksm_domain_create(h, STEP_FRAMES, 2, pool, meta), 0);
	cr_assert_eq(h->ops->file_write(h, *meta, s->coord->meta, s->coord->meta_size, 0), 0);
	for (uint64_t f = 0; f < STEP_FRAMES; f++) {
		cr_assert_eq(h->ops->file_read(h, s->pool, page, OB_PAGE_SIZE, f * OB_PAGE_SIZE),
			     0);
		if (!ksm_page_is_zero(page))
			cr_assert_eq(
				h->ops->file_write(h, *pool, page, OB_PAGE_SIZE, f * OB_PAGE_SIZE),
				0);
	}
}

/* On a copy: the victim is dead now. Is all well, does all come back? */
static void play_death(const struct scene *s, unsigned long at)
{
	struct ksm_domain *coord, *other;
	uint64_t page[512], want[512];
	struct ksm_ref ref;
	uint32_t first, n, total = 0;
	int pool, meta;

	domain_copy(s, &pool, &meta);
	coord = domain_open_as(s->h, pool, meta, KSM_NO_CELL);
	other = domain_open_as(s->h, pool, meta, SURVIVOR);
	ksm_domain_cell_died(coord, VICTIM);
	for (uint64_t f = 0; f < STEP_FRAMES; f++) {
		cr_assert_not(atomic_load(&coord->holder[f]) & 1, "step %lu: a hold is left", at);
		cr_assert_neq(atomic_load(&coord->state[f]) & KSM_FRAME_STATE, KSM_FRAME_FILLING,
			      "step %lu", at);
	}
	for (uint64_t i = 0; i < coord->slots; i++) {
		ref.value = atomic_load(&coord->index[i]);
		if (ksm_ref_kind(&ref) == KSM_FRAME)
			cr_assert(ksm_domain_frame_live(coord, ksm_ref_payload(&ref)),
				  "step %lu: the index names a frame that is not live", at);
	}
	cr_assert_geq(ksm_domain_reap(coord, 1000), 0);
	cr_assert_geq(ksm_domain_reap(coord, 1000), 0);
	cr_assert_eq(stats(coord).live, 1, "step %lu: only the survivor's is left", at);
	cr_assert_eq(stats(coord).entries, 1, "step %lu", at);
	cr_assert_eq(stats(coord).pool_blocks_bytes, OB_PAGE_SIZE, "step %lu: blocks leaked", at);
	cr_assert_eq(ksm_index_find(other, s->kept_hash, &ref), KSM_FRAME);
	cr_assert_eq(ksm_ref_payload(&ref), s->kept);
	cr_assert_eq(ksm_frame_get(other, s->kept), 0);
	cr_assert_eq(s->h->ops->file_read(s->h, pool, page, OB_PAGE_SIZE, s->kept * OB_PAGE_SIZE),
		     0);
	content(want, 99);
	cr_assert_eq(memcmp(page, want, OB_PAGE_SIZE), 0, "step %lu: the survivor's content", at);
	while ((n = ksm_frame_alloc(other, 100, &first)))
		total += n;
	cr_assert_eq(total, STEP_FRAMES - 1, "step %lu: %u frames can be had", at, total);
	domain_close(other);
	domain_close(coord);
	close(pool);
	close(meta);
}

Test(pool_processes, death_at_every_instruction, .timeout = 120)
{
	struct ob_host h;
	struct ob_err e;
	struct scene s = {.h = &h};
	uint64_t page[512], *last, blocks, last_blocks = 0;
	unsigned long steps = 0, deaths = 0;
	int status;
	pid_t pid;

	cr_assert_eq(ob_host_linux_init(&h, &e), 0, "%s", e.msg);
	cr_assert_eq(ksm_domain_create(&h, STEP_FRAMES, 2, &s.pool, &s.meta), 0);
	s.coord = domain_open_as(&h, s.pool, s.meta, KSM_NO_CELL);
	s.survivor = domain_open_as(&h, s.pool, s.meta, SURVIVOR);
	cr_assert_eq(ksm_frame_alloc(s.survivor, 1, &s.kept), 1);
	content(page, 99);
	s.kept_hash = ksm_hash(s.survivor, page);
	cr_assert_eq(h.ops->file_write(&h, s.pool, page, OB_PAGE_SIZE, s.kept * OB_PAGE_SIZE), 0);
	ksm_frame_publish(s.survivor, s.kept);
	cr_assert_eq(ksm_index_insert_frame(s.survivor, s.kept_hash, s.kept), 0);

	pid = victim_start(&s);
	cr_assert_gt(pid, 0);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 21)
		cr_skip_test("ptrace is not allowed here");
	cr_assert(WIFSTOPPED(status), "status %x", status);
	last = malloc(s.coord->meta_size);
	memcpy(last, s.coord->meta, s.coord->meta_size);
	while (WIFSTOPPED(status)) {
		int sig = WSTOPSIG(status);

		cr_assert(sig == SIGTRAP || sig == SIGSTOP, "signal %d", sig);
		cr_assert_eq(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL), 0);
		cr_assert_eq(waitpid(pid, &status, 0), pid);
		steps++;
		cr_assert_eq(h.ops->file_blocks(&h, s.pool, &blocks), 0);
		if (blocks == last_blocks && !memcmp(last, s.coord->meta, s.coord->meta_size))
			continue;
		last_blocks = blocks;
		memcpy(last, s.coord->meta, s.coord->meta_size);
		play_death(&s, steps);
		deaths++;
	}
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", status);
	cr_log_info("%lu instructions, %lu different deaths", steps, deaths);
	cr_assert_geq(deaths, 16, "the steps were not seen: %lu of %lu", deaths, steps);
	play_death(&s, steps);
	free(last);
	domain_close(s.survivor);
	domain_close(s.coord);
	close(s.pool);
	close(s.meta);
	ob_host_linux_exit(&h);
}

/* --- hold against reap, at every instruction ------------------------------------------------- */

enum side { STEP_THE_CELL, STEP_THE_COORDINATOR };

struct duel {
	int got; /* of ksm_frame_get: 0 or -EAGAIN */
	int64_t reaped;
	bool dying;   /* seen so after the steps */
	bool ended;   /* the stepped side came to its end within the steps */
	bool refused; /* no ptrace here */
};

/* A stop for the tracer, with no library code round it that would have to be stepped through. */
static inline void stop_here(void)
{
	__asm__ volatile("int3" ::: "memory");
}

static pid_t duel_start(struct ob_host *h, int pool, int meta, enum side side, uint32_t frame)
{
	pid_t pid = fork();

	if (!pid) {
		struct ksm_domain *d = NULL;
		unsigned int cell = side == STEP_THE_CELL ? VICTIM : KSM_NO_CELL;
		int r;

		if (ksm_domain_open(h, pool, meta, cell, ob_arena_new("duel"), &d))
			_exit(20);
		d->reap_cursor = frame;
		if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
			_exit(21);
		stop_here();
		if (side == STEP_THE_CELL)
			r = ksm_frame_get(d, frame) ? 1 : 0;
		else
			r = (int)ksm_domain_reap(d, 1);
		stop_here();
		_exit(r);
	}
	return pid;
}

/*
 * One frame that nobody holds. One side does @steps instructions of its part, then the other all of
 * its own, then the first one the rest.
 */
static struct duel duel(struct ob_host *h, enum side side, unsigned long steps)
{
	struct ksm_domain *coord, *cell;
	struct duel r = {0};
	uint64_t page[512];
	int pool, meta, status;
	uint32_t frame;
	bool live, held;
	pid_t pid;

	cr_assert_eq(ksm_domain_create(h, STEP_FRAMES, 2, &pool, &meta), 0);
	coord = domain_open_as(h, pool, meta, KSM_NO_CELL);
	cell = domain_open_as(h, pool, meta, SURVIVOR);
	cr_assert_eq(ksm_frame_alloc(cell, 1, &frame), 1);
	content(page, 7);
	cr_assert_eq(h->ops->file_write(h, pool, page, OB_PAGE_SIZE, frame * OB_PAGE_SIZE), 0);
	ksm_frame_publish(cell, frame);
	cr_assert_eq(ksm_index_insert_frame(cell, ksm_hash(cell, page), frame), 0);
	ksm_frame_put(cell, frame);

	pid = duel_start(h, pool, meta, side, frame);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	r.refused = WIFEXITED(status) && WEXITSTATUS(status) == 21;
	for (unsigned long i = 0; i < steps && WIFSTOPPED(status) && !r.ended; i++) {
		struct user_regs_struct regs;

		/* Is the second int3 the next instruction? */
		cr_assert_eq(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL), 0);
		cr_assert_eq(waitpid(pid, &status, 0), pid);
		cr_assert_eq(ptrace(PTRACE_GETREGS, pid, NULL, &regs), 0);
		r.ended = (ptrace(PTRACE_PEEKTEXT, pid, (void *)(uintptr_t)regs.rip, NULL) &
			   0xff) == 0xcc;
	}
	r.dying = (atomic_load(&coord->state[frame]) & KSM_FRAME_STATE) == KSM_FRAME_DYING;
	if (side == STEP_THE_CELL)
		r.reaped = ksm_domain_reap(coord, STEP_FRAMES);
	else
		r.got = ksm_frame_get(cell, frame);
	while (WIFSTOPPED(status)) {
		cr_assert_eq(WSTOPSIG(status), SIGTRAP);
		cr_assert_eq(ptrace(PTRACE_CONT, pid, NULL, NULL), 0);
		cr_assert_eq(waitpid(pid, &status, 0), pid);
	}
	if (!r.refused) {
		cr_assert(WIFEXITED(status) && WEXITSTATUS(status) <= 1, "status %x", status);
		if (side == STEP_THE_CELL)
			r.got = WEXITSTATUS(status) ? -EAGAIN : 0;
		else
			r.reaped = WEXITSTATUS(status);
		live = ksm_domain_frame_live(coord, frame);
		held = atomic_load(&coord->holder[frame]) != 0;
		cr_assert(r.got || !r.reaped, "step %lu: reaped although it was got", steps);
		cr_assert_eq(live, !r.reaped, "step %lu", steps);
		cr_assert_eq(held, !r.got, "step %lu: a bit without a hold, or the reverse", steps);
	}
	domain_close(cell);
	domain_close(coord);
	close(pool);
	close(meta);
	return r;
}

#define STRIDE 16

static void duels(enum side side)
{
	unsigned long gots = 0, reaps = 0, dying = 0, from = 0;
	struct ob_host h;
	struct ob_err e;

	cr_assert_eq(ob_host_linux_init(&h, &e), 0, "%s", e.msg);
	/*
	 * All of a get. Of a reap the part round the point of no return, which is found in strides:
	 * what comes before only looks for a frame, what comes after has it.
	 */
	if (side == STEP_THE_COORDINATOR) {
		for (bool dying_yet = false; !dying_yet; from += STRIDE) {
			struct duel r = duel(&h, side, from);

			dying_yet = r.dying || r.ended || r.refused;
		}
		from -= OB_MIN(from, 12 * STRIDE);
	}
	for (unsigned long step = from; dying < 60; step++) {
		struct duel r = duel(&h, side, step);

		if (r.refused)
			cr_skip_test("ptrace is not allowed here");
		gots += !r.got;
		reaps += r.reaped == 1;
		dying += r.dying;
		if (r.ended)
			break;
	}
	cr_log_info("%lu times got, %lu times reaped", gots, reaps);
	cr_assert_gt(gots, 0);
	cr_assert_gt(reaps, 0);
	ob_host_linux_exit(&h);
}

Test(pool_processes, reaped_at_every_instruction_of_a_get, .timeout = 120)
{
	duels(STEP_THE_CELL);
}

Test(pool_processes, got_at_every_instruction_of_a_reap, .timeout = 120)
{
	duels(STEP_THE_COORDINATOR);
}

/* --- death at any time ----------------------------------------------------------------------- */

#define CELLS	 3
#define FRAMES	 128
#define CONTENTS 60
#define KILLS	 60
#define CORRUPT	 42

struct worker {
	struct ksm_domain *d;
	uint64_t s;
	uint64_t page[CONTENTS][512], hash[CONTENTS];
	uint32_t held[CONTENTS]; /* frame of each content, held; UINT32_MAX: none */
};

/* Does @frame have this content? It is held, so this must be so at any time, or never. */
static bool frame_equals(struct worker *w, uint32_t frame, unsigned int c)
{
	uint64_t page[512];

	if (w->d->host->ops->file_read(w->d->host, w->d->pool_fd, page, OB_PAGE_SIZE,
				       frame * OB_PAGE_SIZE))
		_exit(43);
	return !memcmp(page, w->page[c], OB_PAGE_SIZE);
}

static void worker_make(struct worker *w, unsigned int c, const struct ksm_ref *ref)
{
	uint32_t frame;

	if (!ksm_frame_alloc(w->d, 1, &frame))
		return;
	if (!ksm_index_claim(w->d, ref, frame)) {
		ksm_frame_abandon(w->d, frame, 1);
		return;
	}
	if (w->d->host->ops->file_write(w->d->host, w->d->pool_fd, w->page[c], OB_PAGE_SIZE,
					frame * OB_PAGE_SIZE))
		_exit(44);
	ksm_frame_publish(w->d, frame);
	w->held[c] = frame;
}

static void worker_step(struct worker *w)
{
	unsigned int c = (unsigned int)(rnd(&w->s) % CONTENTS);
	struct ksm_ref ref;
	enum ksm_kind kind;

	if (w->held[c] != UINT32_MAX) {
		if (!frame_equals(w, w->held[c], c))
			_exit(CORRUPT);
		if (rnd(&w->s) % 3 == 0) {
			ksm_frame_put(w->d, w->held[c]);
			w->held[c] = UINT32_MAX;
		}
		return;
	}
	kind = ksm_index_find(w->d, w->hash[c], &ref);
	if (kind == KSM_EMPTY)
		ksm_index_hint(w->d, w->hash[c], c);
	else if (kind == KSM_HINT)
		worker_make(w, c, &ref);
	else if (!ksm_frame_get(w->d, ksm_ref_payload(&ref))) {
		/* What was got is compared: it may be another by now. */
		if (frame_equals(w, ksm_ref_payload(&ref), c))
			w->held[c] = ksm_ref_payload(&ref);
		else
			ksm_frame_put(w->d, ksm_ref_payload(&ref));
	}
}

static pid_t worker_start(struct ob_host *h, int pool, int meta, unsigned int cell, uint64_t seed)
{
	pid_t pid = fork();

	if (!pid) {
		static struct worker w;

		w.s = seed;
		if (ksm_domain_open(h, pool, meta, cell, ob_arena_new("worker"), &w.d))
			_exit(45);
		for (unsigned int c = 0; c < CONTENTS; c++) {
			content(w.page[c], c);
			w.hash[c] = ksm_hash(w.d, w.page[c]);
			w.held[c] = UINT32_MAX;
		}
		for (;;)
			worker_step(&w);
	}
	return pid;
}

Test(pool_processes, death_at_any_time, .timeout = 120)
{
	const uint64_t seed = 20240607;
	uint64_t s = seed, made = 0;
	struct ksm_domain *coord;
	pid_t pid[CELLS];
	struct ob_host h;
	struct ob_err e;
	int pool, meta;

	cr_assert_eq(ob_host_linux_init(&h, &e), 0, "%s", e.msg);
	cr_assert_eq(ksm_domain_create(&h, FRAMES, CELLS, &pool, &meta), 0);
	coord = domain_open_as(&h, pool, meta, KSM_NO_CELL);
	for (unsigned int c = 0; c < CELLS; c++)
		pid[c] = worker_start(&h, pool, meta, c, rnd(&s));
	for (unsigned int kills = 0; kills < KILLS + CELLS; kills++) {
		unsigned int c = kills < KILLS ? (unsigned int)(rnd(&s) % CELLS) : kills - KILLS;
		struct timespec nap = {0, (long)(rnd(&s) % 2000) * 1000};
		int64_t n;
		int status;

		for (unsigned int i = 0; i < 20; i++) {
			n = ksm_domain_reap(coord, FRAMES);
			cr_assert_geq(n, 0);
			made += (uint64_t)n;
		}
		nanosleep(&nap, NULL);
		kill(pid[c], SIGKILL);
		cr_assert_eq(waitpid(pid[c], &status, 0), pid[c]);
		cr_assert(WIFSIGNALED(status),
			  "seed %llu: cell %u ended by itself with %d (%d: a "
			  "frame changed while it was held)",
			  (unsigned long long)seed, c, WEXITSTATUS(status), CORRUPT);
		ksm_domain_cell_died(coord, c);
		if (kills < KILLS)
			pid[c] = worker_start(&h, pool, meta, c, rnd(&s));
	}
	cr_assert_geq(ksm_domain_reap(coord, FRAMES), 0);
	cr_assert_geq(ksm_domain_reap(coord, FRAMES), 0);
	cr_assert_eq(stats(coord).live + stats(coord).filling, 0);
	cr_assert_eq(stats(coord).entries, 0);
	cr_assert_eq(stats(coord).pool_blocks_bytes, 0);
	cr_assert_gt(made, 0, "nothing was ever given back");
	cr_log_info("%llu frames given back", (unsigned long long)made);
	domain_close(coord);
	close(pool);
	close(meta);
	ob_host_linux_exit(&h);
}

Test(pool_processes, what_is_not_used_costs_nothing)
{
	struct ksm_domain *coord, *cell;
	struct ob_host h;
	struct ob_err e;
	uint32_t first;
	int pool, meta;

	cr_assert_eq(ob_host_linux_init(&h, &e), 0, "%s", e.msg);
	/* A tebibyte of frames. */
	cr_assert_eq(ksm_domain_create(&h, EPT_MAX_FRAME, 100, &pool, &meta), 0);
	coord = domain_open_as(&h, pool, meta, KSM_NO_CELL);
	cell = domain_open_as(&h, pool, meta, 50);
	cr_assert_eq(ksm_frame_alloc(cell, 4, &first), 4);
	ksm_frame_publish(cell, first);
	cr_assert_eq(ksm_index_insert_frame(cell, 1ULL << 63, first), 0);
	cr_assert_eq(stats(coord).live, 1);
	cr_assert_eq(ksm_domain_reap(coord, UINT64_MAX), 0);
	ksm_domain_cell_died(coord, 50);
	cr_assert_eq(stats(coord).live, 1, "for reap to give back");
	cr_assert_eq(stats(coord).filling, 0);
	/* The header, the two maps as far as they were looked at, a page each of what is used. */
	cr_assert_leq(stats(coord).meta_bytes, OB_MIB);
	cr_assert_leq(ksm_domain_private_bytes(cell), 2 * OB_PAGE_SIZE);
	domain_close(cell);
	domain_close(coord);
	close(pool);
	close(meta);
	ob_host_linux_exit(&h);
}
