/* SPDX-License-Identifier: Apache-2.0 */
/*
 * opts_domain.c: see opts_domain.h. Options come in any order, --guests behind --domain too: so what is
 * said about guests is kept by number as it comes, and held against their count at the end.
 */
#include "harness/opts_domain.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "harness/opts.h"
#include "harness/place.h"

static int take_name(struct domain_opts *d, const char *arg, size_t len, struct ob_err *e)
{
	if (!len)
		return ob_fail(e, EINVAL,
			       "--domain '%.40s': the name is missing; give NAME or "
			       "NAME:GUESTS, as in tenant-a:0-3",
			       arg);
	if (len >= DOMAIN_NAME_SIZE || strspn(arg, "abcdefghijklmnopqrstuvwxyz0123456789_-") < len)
		return ob_fail(e, EINVAL,
			       "--domain '%.*s': not a name; give up to %d of a-z, 0-9, - and _",
			       (int)(len < 40 ? len : 40), arg, DOMAIN_NAME_SIZE - 1);
	for (unsigned int i = 0; i < d->names; i++)
		if (strlen(d->name[i]) == len && !strncmp(d->name[i], arg, len))
			return ob_fail(e, EINVAL,
				       "--domain '%s' is there twice; give all its guests at once, "
				       "as in %s:0-3,8",
				       d->name[i], d->name[i]);
	if (d->names == DOMAIN_MAX_NAMES)
		return ob_fail(e, EINVAL, "--domain: more than %d names", DOMAIN_MAX_NAMES);
	memcpy(d->name[d->names], arg, len);
	d->name[d->names++][len] = '\0';
	return 0;
}

/* A decimal number below DOMAIN_MAX_GUESTS, and where it ends. */
static bool number(const char **s, unsigned int *out)
{
	unsigned int v = 0;

	if (!isdigit((unsigned char)**s))
		return false;
	for (; isdigit((unsigned char)**s); (*s)++) {
		v = v * 10 + (unsigned int)(**s - '0');
		if (v >= DOMAIN_MAX_GUESTS)
			return false;
	}
	*out = v;
	return true;
}

/* "0-3,8" */
static int take_guests(struct domain_opts *d, const char *name, const char *list, struct ob_err *e)
{
	for (const char *s = list;; s++) {
		unsigned int from, to;
		bool ok = number(&s, &from);

		to = from;
		if (ok && *s == '-') {
			s++;
			ok = number(&s, &to);
		}
		if (!ok || (*s && *s != ','))
			return ob_fail(e, EINVAL,
				       "--domain %s:%.40s: not a list of guests below %d; give "
				       "numbers and ranges, as in 0-3,8",
				       name, list, DOMAIN_MAX_GUESTS);
		if (to < from)
			return ob_fail(e, EINVAL, "--domain %s: the range %u-%u is backwards", name,
				       from, to);
		for (unsigned int g = from; g <= to; g++) {
			if (d->of[g])
				return ob_fail(e, EINVAL,
					       "--domain %s: guest %u is named twice; it was in "
					       "'%s' already",
					       name, g, d->name[d->of[g] - 1]);
			d->of[g] = (uint16_t)d->names;
		}
		if (!*s)
			return 0;
	}
}

int domain_opts_take(struct domain_opts *d, const char *arg, struct ob_err *e)
{
	size_t len = strcspn(arg, ":");
	int r = take_name(d, arg, len, e);

	if (r)
		return r;
	if (arg[len])
		return take_guests(d, d->name[d->names - 1], arg + len + 1, e);
	if (d->rest)
		return ob_fail(e, EINVAL,
			       "--domain %s and --domain %s: only one may be without guests, it is "
			       "for all that no other names",
			       d->name[d->rest - 1], arg);
	d->rest = d->names;
	return 0;
}

int domain_opts_check(const struct domain_opts *d, unsigned int guests, struct ob_err *e)
{
	bool rest = false;

	for (unsigned int g = guests; g < DOMAIN_MAX_GUESTS; g++)
		if (d->of[g])
			return ob_fail(e, EINVAL,
				       "--domain %s: there is no guest %u; with --guests %u there "
				       "are 0 to %u",
				       d->name[d->of[g] - 1], g, guests, guests - 1);
	for (unsigned int g = 0; g < guests; g++)
		rest |= !d->of[g];
	if (d->rest && !rest)
		return ob_fail(e, EINVAL,
			       "--domain %s: no guest is left for it, others name all of them",
			       d->name[d->rest - 1]);
	return 0;
}

const char *domain_opts_name(const struct domain_opts *d, unsigned int guest)
{
	unsigned int of = d->of[guest] ? d->of[guest] : d->rest;

	return of ? d->name[of - 1] : DOMAIN_DEFAULT;
}

unsigned int domain_opts_number(const struct domain_opts *d, unsigned int guests, unsigned int *of)
{
	/* By name and not by index: "default" may have been named as well. */
	unsigned int number_of[DOMAIN_MAX_NAMES + 1], n = 0, same = 0;

	for (unsigned int i = 0; i < d->names && !d->rest; i++)
		if (!strcmp(d->name[i], DOMAIN_DEFAULT))
			same = i + 1;
	for (unsigned int i = 0; i <= d->names; i++)
		number_of[i] = UINT32_MAX;
	for (unsigned int g = 0; g < guests; g++) {
		unsigned int i = d->of[g] ? d->of[g] : d->rest ? d->rest : same;

		if (i && !strcmp(d->name[i - 1], DOMAIN_INTRA)) {
			of[g] = n++;
			continue;
		}
		if (number_of[i] == UINT32_MAX)
			number_of[i] = n++;
		of[g] = number_of[i];
	}
	return n;
}

unsigned int opts_domains(const struct fleet_config *c)
{
	unsigned int *of = calloc(c->guests, sizeof(*of)), n;

	OB_ASSERT(of);
	n = domain_opts_number(&c->domains, c->guests, of);
	free(of);
	return n;
}

/* How many cells there are with one node. */
static unsigned int cells_of(const struct fleet_config *c)
{
	unsigned int *of = calloc(c->guests, sizeof(*of)), n;
	struct place p;

	OB_ASSERT(of);
	domain_opts_number(&c->domains, c->guests, of);
	place_make(&p, of, c->guests, c->cell, 1, c->across_nodes);
	n = p.ncells;
	place_free(&p);
	free(of);
	return n;
}

int opts_together_domains(const struct fleet_config *c, const struct opts_given *given,
			  struct ob_err *e)
{
	unsigned int ndomains, ncells;

	if (domain_opts_check(&c->domains, c->guests, e))
		return -EINVAL;
	ndomains = opts_domains(c);
	ncells = cells_of(c);
	/* When nobody has asked for it, it is left out instead (opts_check). */
	for (unsigned int i = 0; i < c->nsharing && ndomains > 1 && given->sharing; i++)
		if (!strcmp(c->sharing[i]->name, "kernel"))
			return ob_fail(e, EINVAL,
				       "--sharing kernel: " OPTS_KSM_NO_DOMAINS
				       "; leave kernel or --domain out");
	if (ncells > KSM_MAX_CELLS && ndomains > 1)
		return ob_fail(
			e, EINVAL,
			"--guests %u in %u domains with --cell %u are %u cells, more than %d; "
			"give a larger --cell, or fewer domains",
			c->guests, ndomains, c->cell, ncells, KSM_MAX_CELLS);
	if (ncells > KSM_MAX_CELLS)
		return ob_fail(
			e, EINVAL,
			"--guests %u with --cell %u are more than %d cells; give a larger --cell",
			c->guests, c->cell, KSM_MAX_CELLS);
	return 0;
}
