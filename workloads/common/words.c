/* SPDX-License-Identifier: Apache-2.0 */
/*
 * words.c: what the command line says (kernel/agent_abi.h): words NAME=VALUE, separated by spaces.
 */
#include "workloads/common/guest.h"

bool str_equal(const char *a, const char *b)
{
	while (*a && *a == *b) {
		a++;
		b++;
	}
	return *a == *b;
}

bool str_prefix(const char *s, const char *prefix)
{
	while (*prefix)
		if (*s++ != *prefix++)
			return false;
	return true;
}

bool str_number(const char *s, char stop, uint64_t *out)
{
	uint64_t v = 0, base = 10;

	if (s[0] == '0' && s[1] == 'x') {
		base = 16;
		s += 2;
	}
	if (*s == stop)
		return false;
	for (; *s && *s != stop; s++) {
		uint64_t d = *s >= '0' && *s <= '9'   ? (uint64_t)(*s - '0')
			     : *s >= 'a' && *s <= 'f' ? (uint64_t)(*s - 'a') + 10
						      : 16;

		if (d >= base || v > (UINT64_MAX - d) / base)
			return false;
		v = v * base + d;
	}
	*out = v;
	return true;
}

void boot_defaults(struct boot_config *c)
{
	memset(c, 0, sizeof(*c));
	memcpy(c->workload, "idle", 5);
	c->param = c->param2 = BOOT_NO_PARAM;
	c->parts = 1;
}

static void take_word(struct guest *g, const char *w)
{
	struct boot_config *c = &g->cfg;
	bool ok = true;

	if (str_prefix(w, "seed=")) {
		ok = str_number(w + 5, 0, &c->seed);
	} else if (str_prefix(w, "common=")) {
		ok = str_number(w + 7, 0, &c->common);
	} else if (str_prefix(w, "guest=")) {
		ok = str_number(w + 6, 0, &c->guest);
	} else if (str_prefix(w, "param=")) {
		ok = str_number(w + 6, 0, &c->param);
	} else if (str_prefix(w, "param2=")) {
		ok = str_number(w + 7, 0, &c->param2);
	} else if (str_prefix(w, "workload=")) {
		size_t n = 0;

		for (const char *s = w + 9; *s && n < sizeof(c->workload) - 1; s++)
			c->workload[n++] = *s;
		c->workload[n] = 0;
	} else {
		/* Words of others, such as a hypervisor's own additions, are none of ours. */
		platform_word(g, w, &ok);
	}
	if (!ok)
		guest_fail(g, MG_EXIT_BOOT, "cannot make sense of %s on the command line", w);
}

void boot_words(struct guest *g, const char *line, size_t max, const char *prefix)
{
	char word[BOOT_WORD];
	size_t n = 0;

	for (size_t i = 0; i < max; i++) {
		bool end = i + 1 == max || !line[i] || line[i] == '\n';

		if (!end && line[i] != ' ') {
			if (n < BOOT_WORD - 1)
				word[n++] = line[i];
			continue;
		}
		word[n] = 0;
		if (n && str_prefix(word, prefix))
			take_word(g, word + strlen(prefix));
		n = 0;
		if (end)
			break;
	}
}
