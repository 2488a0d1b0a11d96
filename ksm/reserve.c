/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reserve.c: how much must stay available, and who stands still when it does not.
 *
 *	rate	the peak of what guests' own memory grew by a second, decaying
 *	react	how late the last readings came, and how long it took until a breaker stood; both
 *		as decaying peaks, and the shortest time between two readings
 *	reserve	rate * react, never more than could break at all
 *
 * So a host that looks late, because it is busy, keeps more. Until a storm has been measured, and
 * when the last one is long past, the rate is what the caller says that storms are like here.
 *
 * What that is good for: a storm of at most this rate is stopped before the host has run out, if
 * readings come no later, and breakers stand no later, than twice the peaks that were seen. For one
 * that is faster, readings come so close that between two of them, at the highest rate that a host
 * can break pages at, at most half of what is available above two reserves can go: it is measured
 * while there is still as much left as it took.
 *
 * First touches count like breaks: they take the host's memory just the same.
 *
 * Memory that merging gives back makes `own` fall. What breaks meanwhile is hidden by that much,
 * but it is the difference that the host has to find.
 *
 * Three marks: below two reserves the hook is asked, so that it has one reaction time to work in
 * while the other one is still there. Below one reserve it has not worked, and those who break are
 * held up: guests that stand take nothing, and lose nothing. Above three they go on (the first of
 * them above two); the distance keeps them from stopping and going with each page. Merging goes on
 * all the time, as it is what gives memory back.
 */
#include "ksm/reserve.h"

#include <math.h>
#include <stddef.h>

#define SECOND 1e9
/* Shorter than this growth is not taken as a rate: the kernel counts memory in batches. */
#define WINDOW_NS 10000000ULL
/* A breaker's own rate is about now: it counts half after so long. */
#define BREAKER_HALF_NS 1e9
/* How late a reading comes is reckoned to be so much before any came late. */
#define LATE_NS 10000000ULL
/*
 * Lateness counts half after so long. One reading that was very late must not hold guests up for a
 * minute; what is late again and again stays in sight.
 */
#define LATE_HALF_NS 3e9
/* Those who stood go on one after the other, not closer than this. */
#define NEXT_NS 50000000ULL

static uint64_t or_default(uint64_t v, uint64_t otherwise)
{
	return v ? v : otherwise;
}

void ksm_reserve_init(struct ksm_reserve *r, const struct ksm_reserve_opts *opts)
{
	const struct ksm_reserve_opts none = {0}, *o = opts ? opts : &none;

	*r = (struct ksm_reserve){
		.opts = {.rate_min = or_default(o->rate_min, KSM_RESERVE_RATE_MIN),
			 .rate_max = or_default(o->rate_max, KSM_RESERVE_RATE_MAX),
			 .half_ns = or_default(o->half_ns, KSM_RESERVE_HALF_NS),
			 .look_min_ns = or_default(o->look_min_ns, KSM_RESERVE_LOOK_MIN),
			 .look_max_ns = or_default(o->look_max_ns, KSM_RESERVE_LOOK_MAX)},
		.available_min = UINT64_MAX,
		.clear = true,
		.late_ns = LATE_NS,
	};
}

void ksm_reserve_on_low(struct ksm_reserve *r, ksm_reserve_fn fn, void *arg)
{
	r->on_low = fn;
	r->arg = arg;
}

static double at_least(double a, double b)
{
	return a > b ? a : b;
}

/*
 * Bytes a second since the window began. One that is shorter than it should be counts as if it were
 * whole: a storm shows at once, with less than its full rate. The window moves on when it is over.
 */
static double grown(uint64_t now_ns, uint64_t own, uint64_t *window_ns, uint64_t *window_own)
{
	uint64_t dt = now_ns - *window_ns;
	double rate = 0;

	if (own > *window_own)
		rate = (double)(own - *window_own) * SECOND /
		       (double)(dt > WINDOW_NS ? dt : WINDOW_NS);
	if (dt >= WINDOW_NS || own < *window_own) {
		*window_ns = now_ns;
		*window_own = own;
	}
	return rate;
}

static void measure(struct ksm_reserve *r, uint64_t now_ns, const struct ksm_reserve_reading *in)
{
	uint64_t gap = r->seen ? now_ns - r->last_ns : 0;
	double keep = exp2(-(double)gap / (double)r->opts.half_ns), rate;
	double keep_late = exp2(-(double)gap / LATE_HALF_NS);

	if (!r->seen) {
		r->seen = true;
		r->window_ns = now_ns;
		r->window_own = in->own;
		return;
	}
	if (r->state != KSM_RESERVE_OK)
		r->low_ns += gap;
	rate = grown(now_ns, in->own, &r->window_ns, &r->window_own);
	r->rate = at_least(r->rate * keep, rate);
	if (rate > (double)r->rate_peak)
		r->rate_peak = (uint64_t)rate;
	r->late_ns = at_least(r->late_ns * keep_late, (double)gap - (double)r->look_ns);
	r->act_ns *= keep_late;
}

/* Ask for what is missing, again when what was promised has not come in its time. */
static void ask(struct ksm_reserve *r, uint64_t now_ns)
{
	uint64_t wanted = 3 * r->bytes - r->available, got;

	if (r->owed && now_ns - r->asked_ns < r->react_ns) {
		r->unmet = wanted > r->owed ? wanted - r->owed : 0;
		return;
	}
	got = r->on_low ? r->on_low(r->arg, wanted) : 0;
	r->calls += r->on_low != NULL;
	r->promised += got;
	r->asked_ns = now_ns;
	r->owed = got;
	r->unmet = wanted > got ? wanted - got : 0;
}

/* When to read again, so that even the fastest storm leaves half. */
static uint64_t next_look(const struct ksm_reserve *r)
{
	uint64_t above = r->available > 2 * r->bytes ? r->available - 2 * r->bytes : 0;
	double ns = (double)above / 2 / (double)r->opts.rate_max * SECOND;

	if (ns < (double)r->opts.look_min_ns)
		return r->opts.look_min_ns;
	return ns > (double)r->opts.look_max_ns ? r->opts.look_max_ns : (uint64_t)ns;
}

enum ksm_reserve_state ksm_reserve_step(struct ksm_reserve *r, uint64_t now_ns,
					const struct ksm_reserve_reading *in)
{
	double bytes;

	measure(r, now_ns, in);
	r->last_ns = now_ns;
	r->available = in->available;
	r->could = in->could;
	r->react_ns = r->opts.look_min_ns + (uint64_t)(r->late_ns + r->act_ns);
	bytes = at_least(r->rate, (double)r->opts.rate_min) * (double)r->react_ns / SECOND;
	r->bytes = bytes < (double)in->could ? (uint64_t)bytes : in->could;
	if (r->bytes > r->bytes_max)
		r->bytes_max = r->bytes;
	if (in->available < r->available_min)
		r->available_min = in->available;

	r->state = in->available < r->bytes	  ? KSM_RESERVE_GONE
		   : in->available < 2 * r->bytes ? KSM_RESERVE_LOW
						  : KSM_RESERVE_OK;
	r->clear = in->available >= 3 * r->bytes;
	if (r->state == KSM_RESERVE_OK)
		r->owed = r->unmet = 0;
	else
		ask(r, now_ns);
	r->look_ns = next_look(r);
	return r->state;
}

void ksm_reserve_acted(struct ksm_reserve *r, uint64_t ns)
{
	r->act_ns = at_least(r->act_ns, (double)ns);
}

/* --- who stands still -------------------------------------------------------------------- */

static void stand(struct ksm_breaker *b, uint64_t now_ns, bool still)
{
	b->stands = still;
	b->since_ns = now_ns;
}

/* Of those that go, the one that breaks fastest; NULL: nobody breaks. */
static struct ksm_breaker *fastest(struct ksm_breaker *b, unsigned int n)
{
	struct ksm_breaker *best = NULL;

	for (unsigned int i = 0; i < n; i++)
		if (!b[i].absent && !b[i].stands && b[i].rate > (best ? best->rate : 0))
			best = &b[i];
	return best;
}

static unsigned int hold_up(struct ksm_reserve *r, uint64_t now_ns, struct ksm_breaker *b,
			    unsigned int n)
{
	struct ksm_breaker *f;
	unsigned int changed = 0;
	double sum = 0;

	for (unsigned int i = 0; i < n; i++) {
		if (b[i].absent || b[i].stands)
			continue;
		sum += b[i].rate;
		if (r->state == KSM_RESERVE_GONE) {
			stand(&b[i], now_ns, true);
			changed++;
		}
	}
	/* What the rest can take in two reaction times must be there. */
	while (sum * (double)r->react_ns / SECOND * 2 > (double)r->available &&
	       (f = fastest(b, n)) != NULL) {
		stand(f, now_ns, true);
		sum -= f->rate;
		changed++;
	}
	return changed;
}

static unsigned int let_go(struct ksm_reserve *r, uint64_t now_ns, struct ksm_breaker *b,
			   unsigned int n)
{
	struct ksm_breaker *longest = NULL;
	uint64_t gap = r->react_ns > NEXT_NS ? r->react_ns : NEXT_NS;

	for (unsigned int i = 0; i < n; i++) {
		if (b[i].absent)
			continue;
		/* The one before has just begun: let its rate show first. */
		if (now_ns - b[i].since_ns < gap && b[i].since_ns)
			return 0;
		if (b[i].stands && (!longest || b[i].since_ns < longest->since_ns))
			longest = &b[i];
	}
	if (!longest)
		return 0;
	stand(longest, now_ns, false);
	return 1;
}

static bool all_stand(const struct ksm_breaker *b, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++)
		if (!b[i].absent && !b[i].stands)
			return false;
	return true;
}

unsigned int ksm_reserve_throttle(struct ksm_reserve *r, uint64_t now_ns, struct ksm_breaker *b,
				  unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		double keep, rate;

		if (b[i].absent)
			continue;
		if (!b[i].seen) {
			b[i].seen = true;
			b[i].window_ns = now_ns;
			b[i].window_own = b[i].own;
			continue;
		}
		keep = exp2(-(double)(now_ns - b[i].window_ns) / BREAKER_HALF_NS);
		rate = grown(now_ns, b[i].own, &b[i].window_ns, &b[i].window_own);
		b[i].rate = at_least(b[i].window_ns == now_ns ? b[i].rate * keep : b[i].rate, rate);
	}
	if (r->state == KSM_RESERVE_GONE || (r->state == KSM_RESERVE_LOW && r->unmet))
		return hold_up(r, now_ns, b, n);
	/* Where nobody goes, one may as soon as it is not low: he alone is slower than all were. */
	if (r->clear || (r->state == KSM_RESERVE_OK && all_stand(b, n)))
		return let_go(r, now_ns, b, n);
	return 0;
}
