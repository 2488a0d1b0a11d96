/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pure_place.c: --domain as a person writes it, and guests onto cells, pools and nodes: by hand, and at
 * random against the rules that a placement must keep.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/opts_domain.h"
#include "harness/place.h"
#include "workloads/gen.h"

/* --- --domain ------------------------------------------------------------------------------------ */

static struct domain_opts *taken(const char *const *args, unsigned int n)
{
	struct domain_opts *d = calloc(1, sizeof(*d));
	struct ob_err e;

	cr_assert(d);
	for (unsigned int i = 0; i < n; i++)
		cr_assert_eq(domain_opts_take(d, args[i], &e), 0, "%s: %s", args[i], e.msg);
	return d;
}

#define TAKEN(...)                                \
	taken((const char *const[]){__VA_ARGS__}, \
	      sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *))

static void numbers_are(const struct domain_opts *d, unsigned int guests, const char *want)
{
	unsigned int of[64], n, most = 0;

	cr_assert_leq(guests, 64);
	n = domain_opts_number(d, guests, of);
	for (unsigned int g = 0; g < guests; g++) {
		cr_assert_eq(of[g], (unsigned int)(want[g] - '0'), "guest %u: %u, not %c", g, of[g],
			     want[g]);
		most = of[g] > most ? of[g] : most;
	}
	cr_assert_eq(n, most + 1);
}

Test(domain_opts, nothing_said_is_one_domain)
{
	struct domain_opts *d = calloc(1, sizeof(*d));
	struct ob_err e;

	cr_assert_eq(domain_opts_check(d, 5, &e), 0);
	numbers_are(d, 5, "00000");
	cr_assert_str_eq(domain_opts_name(d, 3), "default");
	free(d);
}

Test(domain_opts, names_ranges_and_the_rest)
{
	struct domain_opts *d = TAKEN("b:1,4-5", "a-tenant_2", "c:0");
	struct ob_err e;

	cr_assert_eq(domain_opts_check(d, 8, &e), 0, "%s", e.msg);
	numbers_are(d, 8, "01221122");
	cr_assert_str_eq(domain_opts_name(d, 0), "c");
	cr_assert_str_eq(domain_opts_name(d, 4), "b");
	cr_assert_str_eq(domain_opts_name(d, 7), "a-tenant_2");
	free(d);
}

Test(domain_opts, each_intra_guest_is_alone)
{
	struct domain_opts *d = TAKEN("intra:1-2");
	struct domain_opts *all = TAKEN("intra");

	numbers_are(d, 5, "01200");
	cr_assert_str_eq(domain_opts_name(d, 2), "intra");
	cr_assert_str_eq(domain_opts_name(d, 4), "default");
	numbers_are(all, 4, "0123");
	free(d);
	free(all);
}

/* Guests that nobody names are of the domain of that name, whether it was said or not. */
Test(domain_opts, default_may_be_named)
{
	struct domain_opts *d = TAKEN("x:0", "default:2");

	numbers_are(d, 4, "0111");
	free(d);
}

Test(domain_opts, refused)
{
	static const struct {
		const char *first, *arg, *says;
	} bad[] = {
		{NULL, "", "name is missing"},
		{NULL, ":0", "name is missing"},
		{NULL, "A:0", "not a name"},
		{NULL, "a b", "not a name"},
		{NULL, "a.b:1", "not a name"},
		{NULL, "0123456789012345678901234567890x", "not a name"},
		{NULL, "a:", "not a list"},
		{NULL, "a:1,", "not a list"},
		{NULL, "a:,1", "not a list"},
		{NULL, "a:1-", "not a list"},
		{NULL, "a:-1", "not a list"},
		{NULL, "a:1-2-3", "not a list"},
		{NULL, "a:1:2", "not a list"},
		{NULL, "a: 1", "not a list"},
		{NULL, "a:4096", "not a list"},
		{NULL, "a:99999999999999999999", "not a list"},
		{NULL, "a:3-1", "backwards"},
		{NULL, "a:1,1", "guest 1 is named twice"},
		{NULL, "a:1-3,2", "guest 2 is named twice"},
		{"b:0-3", "a:3-4", "it was in 'b'"},
		{"a:0", "a:1", "is there twice"},
		{"a", "b", "only one"},
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct domain_opts *d = calloc(1, sizeof(*d));
		struct ob_err e = {""};

		if (bad[i].first)
			cr_assert_eq(domain_opts_take(d, bad[i].first, &e), 0, "%s", e.msg);
		cr_assert_eq(domain_opts_take(d, bad[i].arg, &e), -EINVAL, "'%s' was taken",
			     bad[i].arg);
		cr_assert(strstr(e.msg, bad[i].says), "'%s': '%s' is not in: %s", bad[i].arg,
			  bad[i].says, e.msg);
		cr_assert_null(strchr(e.msg, '\n'));
		free(d);
	}
}

Test(domain_opts, names_of_31_letters_and_the_last_guest)
{
	struct domain_opts *d = TAKEN("0123456789012345678901234567890:4095");
	struct ob_err e;

	cr_assert_eq(domain_opts_check(d, 4096, &e), 0, "%s", e.msg);
	cr_assert_str_eq(domain_opts_name(d, 4095), "0123456789012345678901234567890");
	free(d);
}

Test(domain_opts, guests_must_be_there)
{
	struct domain_opts *d = TAKEN("a:0-3", "b");
	struct ob_err e;

	cr_assert_eq(domain_opts_check(d, 5, &e), 0);
	cr_assert_eq(domain_opts_check(d, 3, &e), -EINVAL);
	cr_assert(strstr(e.msg, "no guest 3"), "%s", e.msg);
	cr_assert_eq(domain_opts_check(d, 4, &e), -EINVAL);
	cr_assert(strstr(e.msg, "no guest is left"), "%s", e.msg);
	free(d);
}

/* Guests dealt out at random, written down as a person might, in any order: each is where it was dealt. */
Test(domain_opts, random_deals_are_understood)
{
	struct gen_rng r = {21};

	for (unsigned int round = 0; round < 400; round++) {
		unsigned int guests = 1 + (unsigned int)gen_below(&r, 300);
		unsigned int names = 1 + (unsigned int)gen_below(&r, 12), n;
		unsigned int first = (unsigned int)gen_below(&r, names);
		struct domain_opts *d = calloc(1, sizeof(*d));
		unsigned int *deal = calloc(guests, sizeof(*deal)),
			     *of = calloc(guests, sizeof(*of));
		struct ob_err e;

		/* The last name stands for nobody named. */
		for (unsigned int g = 0; g < guests; g++)
			deal[g] = (unsigned int)gen_below(&r, 3) && g
					  ? deal[g - 1]
					  : (unsigned int)gen_below(&r, names + 1);
		for (unsigned int k = 0; k < names; k++) {
			unsigned int name = (first + k) % names;
			char arg[4096];
			size_t len = (size_t)snprintf(arg, sizeof(arg), "t%u:", name), none = len;

			for (unsigned int g = 0, to; g < guests; g = to + 1) {
				to = g;
				if (deal[g] != name)
					continue;
				/* A run may be given in pieces. */
				while (to + 1 < guests && deal[to + 1] == name && gen_below(&r, 8))
					to++;
				len += (size_t)snprintf(arg + len, sizeof(arg) - len,
							to > g ? "%s%u-%u" : "%s%u",
							len > none ? "," : "", g, to);
			}
			if (len > none)
				cr_assert_eq(domain_opts_take(d, arg, &e), 0, "%s: %s", arg, e.msg);
		}
		cr_assert_eq(domain_opts_check(d, guests, &e), 0, "%s", e.msg);
		n = domain_opts_number(d, guests, of);
		for (unsigned int g = 0; g < guests; g++) {
			char want[16];

			snprintf(want, sizeof(want), deal[g] == names ? "default" : "t%u", deal[g]);
			cr_assert_str_eq(domain_opts_name(d, g), want);
			cr_assert_lt(of[g], n);
			for (unsigned int h = 0; h < g; h++)
				cr_assert_eq(of[g] == of[h], deal[g] == deal[h]);
		}
		free(deal);
		free(of);
		free(d);
	}
}

/* --- placement ------------------------------------------------------------------------------------ */

/* Cells as letters by guest, pools as numbers by cell. */
static void placed(const char *domains, unsigned int most, unsigned int nodes, bool across,
		   const char *cells, const char *pools, const char *on)
{
	unsigned int of[32] = {0}, n = (unsigned int)strlen(domains);
	struct place p;

	for (unsigned int g = 0; g < n; g++)
		of[g] = (unsigned int)(domains[g] - '0');
	place_make(&p, of, n, most, nodes, across);
	for (unsigned int g = 0; g < n; g++)
		cr_assert_eq(p.cell_of[g], (unsigned int)(cells[g] - 'a'),
			     "%s: guest %u in cell %c", domains, g, 'a' + (int)p.cell_of[g]);
	cr_assert_eq(p.ncells, strlen(pools));
	for (unsigned int i = 0; i < p.ncells; i++) {
		cr_assert_eq(p.cell[i].pool, (unsigned int)(pools[i] - '0'), "%s: cell %u", domains,
			     i);
		cr_assert_eq(p.cell[i].node, (unsigned int)(on[i] - '0'), "%s: cell %u", domains,
			     i);
	}
	place_free(&p);
}

Test(place, one_domain_on_one_node)
{
	placed("0000000", 3, 1, false, "aaabbbc", "000", "000");
	placed("0", 8, 4, false, "a", "0", "0");
}

Test(place, domains_do_not_share_a_cell)
{
	placed("0101", 8, 1, false, "abab", "01", "00");
	placed("010100", 2, 1, false, "acacbb", "001", "000");
	placed("0123", 8, 1, false, "abcd", "0123", "0000");
}

Test(place, nodes_get_a_block_each)
{
	placed("00000000", 2, 2, false, "aabbccdd", "0011", "0011");
	placed("00000000", 2, 2, true, "aabbccdd", "0000", "0011");
	placed("00000", 8, 2, false, "aaabb", "01", "01");
	/* More nodes than guests. */
	placed("00", 8, 4, false, "ab", "01", "01");
	/* Small domains stay whole, and all nodes have work. */
	placed("0101", 8, 2, false, "abab", "01", "01");
	placed("0123", 8, 2, false, "abcd", "0123", "0011");
}

static void obey(const struct place *p, const unsigned int *of, unsigned int most, bool across)
{
	unsigned int *seen = calloc(p->guests, sizeof(*seen)), total = 0, pool_guests = 0;
	unsigned int *cells_of = calloc(p->npools, sizeof(*cells_of));
	unsigned int *on_node = calloc(p->nodes, sizeof(*on_node));

	for (unsigned int i = 0; i < p->ncells; i++) {
		const struct place_cell *k = &p->cell[i];
		const struct place_pool *pool = &p->pool[k->pool];

		cr_assert(k->n >= 1 && k->n <= most);
		cr_assert_eq(k->first, total);
		total += k->n;
		cr_assert_lt(k->node, p->nodes);
		on_node[k->node] += k->n;
		cr_assert_eq(pool->domain, k->domain);
		cr_assert_eq(pool->node, across ? PLACE_ALL_NODES : (int)k->node);
		cr_assert_eq(k->number, cells_of[k->pool]++);
		for (unsigned int n = 0; n < k->n; n++) {
			unsigned int g = p->order[k->first + n];

			cr_assert_eq(seen[g]++, 0, "guest %u is in two cells", g);
			cr_assert_eq(p->cell_of[g], i);
			cr_assert_eq(of[g], k->domain);
			cr_assert_eq(p->domain_of[g], k->domain);
			cr_assert(!n || p->order[k->first + n - 1] < g);
		}
	}
	cr_assert_eq(total, p->guests);
	/* A border between two nodes cuts one domain at most. */
	if (across)
		cr_assert_eq(p->npools, p->domains);
	else
		cr_assert_leq(p->npools, p->domains + p->nodes - 1);
	for (unsigned int i = 0; i < p->npools; i++) {
		cr_assert_eq(p->pool[i].cells, cells_of[i]);
		cr_assert_gt(p->pool[i].cells, 0);
		pool_guests += p->pool[i].guests;
		for (unsigned int j = 0; j < i; j++)
			cr_assert(p->pool[i].domain != p->pool[j].domain ||
					  p->pool[i].node != p->pool[j].node,
				  "two pools for the same");
	}
	cr_assert_eq(pool_guests, p->guests);
	for (unsigned int i = 0; i < p->nodes; i++)
		cr_assert(on_node[i] == p->guests / p->nodes ||
				  on_node[i] == p->guests / p->nodes + 1,
			  "node %u has %u of %u guests on %u nodes", i, on_node[i], p->guests,
			  p->nodes);
	free(seen);
	free(cells_of);
	free(on_node);
}

Test(place, random_fleets_keep_the_rules)
{
	struct gen_rng r = {20};

	for (unsigned int round = 0; round < 3000; round++) {
		unsigned int guests = 1 + (unsigned int)gen_below(&r, round % 50 ? 40 : 1500);
		unsigned int most = 1 + (unsigned int)gen_below(&r, 12);
		unsigned int nodes = 1 + (unsigned int)gen_below(&r, 9);
		unsigned int names = 1 + (unsigned int)gen_below(&r, guests), next = 0;
		unsigned int *of = calloc(guests, sizeof(*of)), *as = calloc(names, sizeof(*as));
		bool across = gen_below(&r, 2);
		struct place p;

		/* Numbered in the order of their first guests, as domain_opts_number does. */
		for (unsigned int g = 0; g < guests; g++) {
			unsigned int name = (unsigned int)gen_below(&r, names);

			if (!as[name])
				as[name] = ++next;
			of[g] = as[name] - 1;
		}
		place_make(&p, of, guests, most, nodes, across);
		cr_assert_eq(p.domains, next);
		cr_assert_eq(p.nodes, nodes < guests ? nodes : guests);
		obey(&p, of, most, across);
		place_free(&p);
		free(of);
		free(as);
	}
}
