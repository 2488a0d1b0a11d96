/* SPDX-License-Identifier: Apache-2.0 */
/*
 * opts.c: the command lines of run, fleet and compare.
 *
 * argp reads them, but says nothing itself: a person who mistypes gets one line that names the
 * word, what is wrong with it and what would be right, where argp would print its usage as well. So
 * the parser fills a struct ob_err and the caller prints it. Nothing here looks at the host; that
 * is opts_check.c.
 */
#include <argp.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "harness/opts.h"

enum opts_key {
	KEY_GUESTS = 0x100,
	KEY_MEM,
	KEY_WORKLOAD,
	KEY_SHARING,
	KEY_LIVE,
	KEY_SECONDS,
	KEY_SEED,
	KEY_JSON,
	KEY_GUEST,
	KEY_CELL,
	KEY_KERNEL,
	KEY_IMAGE,
	KEY_OUT,
	KEY_QUIET,
	KEY_INJECT,
	KEY_KSM,
	KEY_WARM,
	KEY_CONTROL,
	KEY_WORKING_SET,
	KEY_SAMPLE_PAGES,
	KEY_SAMPLE_PERIOD,
	KEY_PAGES,
	KEY_THRESHOLD,
	KEY_HOST_MEM,
	KEY_KSM_CPU,
	KEY_SCAN_GAP,
	KEY_DOMAIN,
	KEY_ACROSS,
	KEY_IO_HINTS,
	KEY_MAX_PAUSE,
	KEY_INITRD,
	KEY_APPEND,
	KEY_VCPUS,
	KEY_DISK,
	KEY_BOOT_TIMEOUT,
	KEY_READY,
	KEY_HELP,
};

/* clang-format off */
#define OPTS_COMMON \
	{"mem", KEY_MEM, "SIZE", 0, "memory of each guest: 16M, 1G (default 64M)", 0}, \
	{"workload", KEY_WORKLOAD, "NAME[,NAME...]", 0, \
	 "kv, filecache, churn, idle, steady; or a memory workload, with up to two numbers: " \
	 "counters:ORDER:MS, touch:PERCENT:SCATTER, writer:PAGES:US, unique:PAGES:FREE, " \
	 "same:PAGES:CONTENTS, shuffle:PAGES, first:WRITE, ping, cowstorm:SECONDS:STORMS, " \
	 "probe:SECONDS:PAGES, remerge:PAGES:US; guest i runs the i-th, round and round (default kv)", 0}, \
	{"seconds", KEY_SECONDS, "S", 0, "measured time over warm guests (default 10)", 0}, \
	{"seed", KEY_SEED, "N", 0, "of everything random (default 1)", 0}, \
	{"json", KEY_JSON, "FILE", 0, "write the result there; - is standard output", 0}, \
	{"guest", KEY_GUEST, "KIND", 0, "microguest (default) or linux (default with --initrd, or " \
	 "when --kernel is a Linux kernel; alone: the project's own image)", 0}, \
	{"kernel", KEY_KERNEL, "FILE", 0, "guest to boot: a Linux bzImage or vmlinux, or a microguest " \
	 "(default: microguest.elf next to overbook)", 0}, \
	{"initrd", KEY_INITRD, "FILE", 0, "initial RAM disk of Linux guests", 0}, \
	{"append", KEY_APPEND, "WORDS", 0, "to the end of the Linux kernel's command line", 0}, \
	{"vcpus", KEY_VCPUS, "N", 0, "vCPUs of each Linux guest, 1 to 64 (default 1)", 0}, \
	{"disk", KEY_DISK, "FILE[:rw]", 0, "raw disk of Linux guests, up to 4; {} in its name is the " \
	 "guest's number; with :rw the guest may write to it", 0}, \
	{"boot-timeout", KEY_BOOT_TIMEOUT, "S", 0, "time for a Linux guest to boot: for its agent to " \
	 "speak, or its console to say the text of --ready (default 60; 3600 on a KVM without " \
	 "hardware below it)", 0}, \
	{"ready", KEY_READY, "TEXT", 0, "what the console of a Linux guest without our agent says " \
	 "when it has booted: \"login:\"; one that does not in time is ended", 0}, \
	{"image", KEY_IMAGE, "FILE", 0, "disk of the guests (default: guest.img next to overbook)", 0}, \
	{"control", KEY_CONTROL, "PATH", 0, \
	 "socket to ask and steer it by (docs/control.md); none: no such socket", 0}, \
	{"working-set", KEY_WORKING_SET, NULL, 0, \
	 "estimate by sampling how much memory each guest uses", 0}, \
	{"sample-pages", KEY_SAMPLE_PAGES, "N", 0, "pages sampled a period (default 400)", 0}, \
	{"sample-period", KEY_SAMPLE_PERIOD, "SECONDS", 0, "how long each is watched (default 30)", 0}, \
	{"pages", KEY_PAGES, "SIZE", 0, "what backs the guests' memory: 4k (default), 2m (huge " \
	 "pages) or adaptive (huge pages, but where sharing gains more)", 0}, \
	{"huge-threshold", KEY_THRESHOLD, "PAGES", 0, "with adaptive: break a huge page when that " \
	 "gives back so many of its 512 pages (default 64)", 0}, \
	{"quiet", KEY_QUIET, NULL, 0, "no progress lines", 0}, \
	{"warm-timeout", KEY_WARM, "S", 0, "time for guests to fill their memory (default 120, " \
	 "and 30 for each GiB of the fleet)", 0}, \
	{"help", KEY_HELP, NULL, 0, "print this and exit", 0}

static const struct argp_option opts_run[] = {OPTS_COMMON, {0}};

static const struct argp_option opts_many[] = {
	OPTS_COMMON,
	{"guests", KEY_GUESTS, "N", 0, "how many guests (default 16)", 0},
	{"sharing", KEY_SHARING, "MODE[,MODE...]", 0,
	 "off, hash (our merging) or kernel (Linux KSM; needs root). fleet: one, default hash. "
	 "compare: several, default off,hash,kernel; off, the control, is always run", 0},
	{"live", KEY_LIVE, NULL, 0,
	 "boot the guests once and switch them through the modes of --sharing, each measured for "
	 "--seconds (a mode may come more than once)", 0},
	{"cell", KEY_CELL, "N", 0, "most guests in one process (default 8)", 0},
	{"ksm", KEY_KSM, "PACE", 0,
	 "how the mode kernel drives Linux KSM: fastest (default), default (as the kernel starts), "
	 "advisor (its scan-time advisor), sleep:MS (fastest, but for MS of rest after a scan)", 0},
	{"ksm-cpu", KEY_KSM_CPU, "PERCENT", 0,
	 "CPU that our merging may take on this host, of one core, after a burst for guests that are "
	 "new (default 5; 0: no limit)", 0},
	{"scan-gap", KEY_SCAN_GAP, "MS", 0,
	 "how long our merging rests between passes over settled guests (default 250)", 0},
	{"domain", KEY_DOMAIN, "NAME[:GUESTS]", 0,
	 "guests that may share with each other and with no others: a:0-3,8; without GUESTS all that "
	 "no other --domain names; the name intra: each of them for itself (default: all together)", 0},
	{"merge-across-nodes", KEY_ACROSS, NULL, 0,
	 "one pool a domain, and not one on each NUMA node", 0},
	{"io-hints", KEY_IO_HINTS, "on|off", 0,
	 "with hash: merge what a guest reads from its disk at once, not when it is scanned (default "
	 "on)", 0},
	{"max-pause", KEY_MAX_PAUSE, "US", 0,
	 "how long our merging may have a guest stand still at a time, in microseconds (default 500)",
	 0},
	{"out", KEY_OUT, "DIR", 0,
	 "folder for result.json and report.html (compare: default results/<time>)", 0},
	{"host-mem", KEY_HOST_MEM, "SIZE", 0, "once merged, all guests are to live in so much of the "
	 "host's memory (default: what it has)", 0},
	{"inject", KEY_INJECT, "FAULT", OPTION_HIDDEN, NULL, 0},
	{0},
};
/* clang-format on */

struct opts_state {
	struct fleet_config *c;
	struct opts_given *given;
	struct ob_err *e;
	const struct argp *argp;
	char name[32]; /* "overbook fleet" */
	bool compare;
	bool help;
	bool explained; /* @e says what is wrong */
};

/* A whole decimal number and nothing else: no sign, no space. -EINVAL, -ERANGE. */
static int parse_number(const char *s, uint64_t *out)
{
	uint64_t v = 0;

	if (!*s)
		return -EINVAL;
	for (; *s; s++) {
		if (!isdigit((unsigned char)*s))
			return -EINVAL;
		if (__builtin_mul_overflow(v, 10, &v) ||
		    __builtin_add_overflow(v, (uint64_t)(*s - '0'), &v))
			return -ERANGE;
	}
	*out = v;
	return 0;
}

int opts_parse_size(const char *s, uint64_t *out)
{
	static const char units[] = "KMGT";
	char digits[24];
	size_t n = strspn(s, "0123456789");
	uint64_t v, unit = 1;
	int ret;

	if (!n)
		return -EINVAL;
	if (s[n]) {
		const char *u = strchr(units, toupper((unsigned char)s[n]));

		if (!u || s[n + 1])
			return -EINVAL;
		unit = 1ULL << (10 * (u - units + 1));
	}
	if (n >= sizeof(digits))
		return -ERANGE;
	memcpy(digits, s, n);
	digits[n] = '\0';
	ret = parse_number(digits, &v);
	if (ret)
		return ret;
	if (__builtin_mul_overflow(v, unit, out))
		return -ERANGE;
	return 0;
}

/* Refuse with one line. */
#define opts_bad(st, ...) ((st)->explained = true, ob_fail((st)->e, EINVAL, __VA_ARGS__), EINVAL)

static int take_count(struct opts_state *st, const char *opt, const char *arg, uint64_t min,
		      uint64_t max, uint64_t *out)
{
	uint64_t v = 0;
	int ret = parse_number(arg, &v);

	if (ret == -EINVAL)
		return opts_bad(st, "%s '%.40s': not a whole number; give one from %llu to %llu",
				opt, arg, (unsigned long long)min, (unsigned long long)max);
	if (ret || v < min || v > max)
		return opts_bad(st, "%s %.40s: out of range; give a number from %llu to %llu", opt,
				arg, (unsigned long long)min, (unsigned long long)max);
	*out = v;
	return 0;
}

static int take_mem(struct opts_state *st, const char *arg)
{
	uint64_t v = 0;
	int ret = opts_parse_size(arg, &v);

	if (ret == -EINVAL)
		return opts_bad(st,
				"--mem '%.40s': not a size; give a whole number with K, M, G or T, "
				"as in 64M",
				arg);
	if (ret || v > OPTS_MAX_MEM)
		return opts_bad(st, "--mem %.40s: too much for one guest; at most 1T", arg);
	if (v < OPTS_MIN_MEM)
		return opts_bad(st, "--mem %.40s: too little for a guest; at least 8M", arg);
	if (v & OB_PAGE_MASK)
		return opts_bad(st, "--mem %.40s: not a multiple of a page (4K)", arg);
	st->c->mem_bytes = v;
	return 0;
}

/* The next word of a comma list into @word; false at its end. Empty words are words. */
static bool list_next(const char **list, char *word, size_t len)
{
	size_t n;

	if (!*list)
		return false;
	n = strcspn(*list, ",");
	snprintf(word, len, "%.*s", (int)OB_MIN(n, len - 1), *list);
	*list = (*list)[n] ? *list + n + 1 : NULL;
	return true;
}

static int take_workload(struct opts_state *st, const char *arg)
{
	struct fleet_config *c = st->c;
	const char *all = arg;
	char word[48];

	c->nworkloads = 0;
	while (list_next(&arg, word, sizeof(word))) {
		struct ob_err e;

		if (!*word)
			return opts_bad(st, "--workload '%s': an empty name in the list", all);
		if (opts_check_workload(word, &e))
			return opts_bad(st, "%s", e.msg);
		if (strlen(word) >= sizeof(c->workload[0]))
			return opts_bad(st, "--workload '%s': the numbers are too long", word);
		if (c->nworkloads == FLEET_MAX_WORKLOADS)
			return opts_bad(st, "--workload: more than %d names", FLEET_MAX_WORKLOADS);
		strcpy(c->workload[c->nworkloads++], word);
	}
	return 0;
}

static int take_sharing(struct opts_state *st, const char *arg)
{
	struct fleet_config *c = st->c;
	char word[48];

	st->given->sharing = true;
	c->nsharing = 0;
	while (list_next(&arg, word, sizeof(word))) {
		const struct ksm_engine_ops *ops = ksm_engine_find(word);

		if (!ops)
			return opts_bad(st,
					"--sharing '%s': unknown; there are off, hash and kernel",
					word);
		for (unsigned int i = 0; i < c->nsharing; i++)
			if (c->sharing[i] == ops && !st->given->repeated)
				st->given->repeated = ops->name;
		if (c->nsharing && c->sharing[c->nsharing - 1] == ops)
			return opts_bad(st, "--sharing: '%s' is there twice; name each mode once",
					word);
		if (c->nsharing == FLEET_MAX_MODES)
			return opts_bad(st, "--sharing: more than %d modes", FLEET_MAX_MODES);
		c->sharing[c->nsharing++] = ops;
	}
	return 0;
}

/* Several modes, and the same one again: only where one fleet goes through all of them. */
static int opts_together_live(struct opts_state *st)
{
	const struct fleet_config *c = st->c;

	if (!c->live && !st->compare && c->nsharing > 1)
		return opts_bad(st,
				"--sharing: %s takes one mode; several are for overbook compare, "
				"or for one fleet with --live",
				st->name);
	if (!c->live && st->given->repeated)
		return opts_bad(
			st, "--sharing: '%s' is there twice; name each mode once, or give --live",
			st->given->repeated);
	if (c->live && c->nsharing < 2)
		return opts_bad(st, "--live: name the modes to go through: --sharing "
				    "off,kernel,off,hash");
	if (c->live && c->inject)
		return opts_bad(st, "--live: --inject is for one mode");
	return 0;
}

static int take_ksm(struct opts_state *st, const char *arg)
{
	int ret = ksm_pace_parse(arg, &st->c->ksm_pace);

	st->given->ksm = true;
	if (ret == -ERANGE)
		return opts_bad(st, "--ksm %.40s: too long a rest; at most %d ms", arg,
				KSM_PACE_MAX_SLEEP);
	if (ret)
		return opts_bad(
			st,
			"--ksm '%.40s': unknown; there are fastest, default, advisor and sleep:MS",
			arg);
	return 0;
}

static int take_period(struct opts_state *st, const char *arg)
{
	uint64_t ns = 0;
	int ret = opts_parse_seconds(arg, &ns);

	st->given->sample = true;
	if (ret == -EINVAL)
		return opts_bad(
			st,
			"--sample-period '%.40s': not a number of seconds; give one such as "
			"30 or 1.5",
			arg);
	if (ret || ns < EPT_WSET_MIN_PERIOD || ns > EPT_WSET_MAX_PERIOD)
		return opts_bad(
			st, "--sample-period %.40s: out of range; give 0.1 to 86400 seconds", arg);
	st->c->wset.period_ns = ns;
	return 0;
}

static int take_inject(struct opts_state *st, const char *arg)
{
	static const struct {
		const char *name;
		unsigned int bit;
	} faults[] = {
		{"flip-frame", KSM_INJECT_FLIP_FRAME},
		{"skip-compare", KSM_INJECT_SKIP_COMPARE},
		{"lose-break", KSM_INJECT_LOSE_BREAK},
	};

	for (unsigned int i = 0; i < OB_ARRAY_SIZE(faults); i++)
		if (strcmp(arg, faults[i].name) == 0) {
			st->c->inject |= faults[i].bit;
			return 0;
		}
	return opts_bad(
		st, "--inject '%.40s': unknown; there are flip-frame, skip-compare and lose-break",
		arg);
}

/* argp has stopped at @word without saying so: which of its two reasons was it? */
static int explain_option(struct opts_state *st, const char *word)
{
	size_t n = strcspn(word, "=");
	unsigned int hits = 0;
	const struct argp_option *hit = NULL;
	bool exact = false;

	if (strncmp(word, "--", 2) == 0 && n > 2)
		for (const struct argp_option *o = st->argp->options; o->name; o++) {
			if (exact || strncmp(o->name, word + 2, n - 2) != 0)
				continue;
			exact = strlen(o->name) == n - 2;
			hit = o;
			hits++;
		}
	if (hits > 1 && !exact)
		return opts_bad(st,
				"option '%.60s' is short for several; spell it out (try %s --help)",
				word, st->name);
	if (hits && hit->arg && !word[n])
		return opts_bad(st, "option '%.60s' needs a value: --%s=%s", word, hit->name,
				hit->arg);
	if (hits && !hit->arg && word[n])
		return opts_bad(st, "option '--%s' takes no value", hit->name);
	return opts_bad(st, "unknown option '%.60s' (try %s --help)", word, st->name);
}

/* What another file has understood or refused. */
static int take_with(struct opts_state *st, int ret)
{
	st->explained |= ret != 0;
	return -ret;
}

static error_t opts_option(int key, char *arg, struct argp_state *state)
{
	struct opts_state *st = state->input;
	struct fleet_config *c = st->c;
	uint64_t v = 0;
	int ret = 0;

	switch (key) {
	case KEY_GUESTS:
		ret = take_count(st, "--guests", arg, 1, FLEET_MAX_GUESTS, &v);
		c->guests = (unsigned int)v;
		return ret;
	case KEY_CELL:
		ret = take_count(st, "--cell", arg, 1, FLEET_MAX_GUESTS, &v);
		c->cell = (unsigned int)v;
		return ret;
	case KEY_KSM_CPU:
		ret = take_count(st, "--ksm-cpu", arg, 0, KSM_BUDGET_MAX_PERCENT, &v);
		c->ksm_cpu_percent = (unsigned int)v;
		return ret;
	case KEY_SCAN_GAP:
		ret = take_count(st, "--scan-gap", arg, 1, 3600000, &v);
		c->scan_gap_ms = (unsigned int)v;
		return ret;
	case KEY_MAX_PAUSE:
		ret = take_count(st, "--max-pause", arg, OPTS_MIN_PAUSE, OPTS_MAX_PAUSE, &v);
		c->max_pause_us = (unsigned int)v;
		return ret;
	case KEY_SECONDS:
		st->given->seconds = true;
		ret = take_count(st, "--seconds", arg, 1, OPTS_MAX_SECONDS, &v);
		c->seconds = (unsigned int)v;
		return ret;
	case KEY_WARM:
		ret = take_count(st, "--warm-timeout", arg, 1, OPTS_MAX_WARM, &v);
		c->warm_timeout = (unsigned int)v;
		return ret;
	case KEY_SEED:
		return take_count(st, "--seed", arg, 0, INT64_MAX, &c->seed);
	case KEY_MEM:
		st->given->mem = true;
		return take_mem(st, arg);
	case KEY_WORKLOAD:
		st->given->workload = true;
		return take_workload(st, arg);
	case KEY_SHARING:
		return take_sharing(st, arg);
	case KEY_INJECT:
		return take_inject(st, arg);
	case KEY_KSM:
		return take_ksm(st, arg);
	case KEY_PAGES:
		st->explained |= opts_take_pages(c, arg, st->e) != 0;
		return c->pages == EPT_PAGES_NMODES ? EINVAL : 0;
	case KEY_DOMAIN:
		ret = domain_opts_take(&c->domains, arg, st->e);
		st->explained |= ret != 0;
		return -ret;
	case KEY_ACROSS:
		c->across_nodes = true;
		return 0;
	case KEY_THRESHOLD:
		ret = take_count(st, "--huge-threshold", arg, 1, EPT_UNIT_PAGES, &v);
		c->huge_threshold = (unsigned int)v;
		return ret;
	case KEY_IO_HINTS:
		c->io_hints = strcmp(arg, "on") == 0;
		if (!c->io_hints && strcmp(arg, "off"))
			return opts_bad(st, "--io-hints '%.40s': give on or off", arg);
		return 0;
	case KEY_HOST_MEM:
		ret = opts_take_host_mem(c, arg, st->e);
		st->explained |= ret != 0;
		return ret ? EINVAL : 0;
	case KEY_GUEST:
		return take_with(st, opts_take_guest(st->given, arg, st->e));
	case KEY_INITRD:
		c->lx.initrd = arg;
		return *arg ? 0 : opts_bad(st, "--initrd: the file name is empty");
	case KEY_APPEND:
		return take_with(st, opts_take_append(c, arg, st->e));
	case KEY_DISK:
		return take_with(st, opts_take_disk(c, arg, st->e));
	case KEY_VCPUS:
		ret = take_count(st, "--vcpus", arg, 1, LINUX_MAX_VCPUS, &v);
		c->lx.vcpus = (unsigned int)v;
		return ret;
	case KEY_BOOT_TIMEOUT:
		ret = take_count(st, "--boot-timeout", arg, 1, LINUX_MAX_BOOT, &v);
		c->lx.boot_timeout = (unsigned int)v;
		return ret;
	case KEY_READY:
		return take_with(st, opts_take_ready(c, arg, st->e));
	case KEY_JSON:
		c->json_path = arg;
		return *arg ? 0 : opts_bad(st, "--json: the file name is empty");
	case KEY_KERNEL:
		c->kernel_path = arg;
		return *arg ? 0 : opts_bad(st, "--kernel: the file name is empty");
	case KEY_IMAGE:
		c->image_path = arg;
		return *arg ? 0 : opts_bad(st, "--image: the file name is empty");
	case KEY_OUT:
		c->out_dir = arg;
		st->given->out_dir = true;
		return *arg ? 0 : opts_bad(st, "--out: the folder name is empty");
	case KEY_CONTROL:
		c->control_path = arg;
		if (strlen(arg) >= OPTS_MAX_SOCKET)
			return opts_bad(
				st, "--control: the path has %zu bytes, a socket's may have %zu",
				strlen(arg), OPTS_MAX_SOCKET - 1);
		return *arg ? 0 : opts_bad(st, "--control: the path is empty");
	case KEY_WORKING_SET:
		st->given->working_set = true;
		return 0;
	case KEY_SAMPLE_PAGES:
		st->given->sample = true;
		ret = take_count(st, "--sample-pages", arg, EPT_WSET_MIN_SAMPLES,
				 EPT_WSET_MAX_SAMPLES, &v);
		c->wset.samples = (unsigned int)v;
		return ret;
	case KEY_SAMPLE_PERIOD:
		return take_period(st, arg);
	case KEY_LIVE:
		c->live = true;
		return 0;
	case KEY_QUIET:
		c->quiet = true;
		return 0;
	case KEY_HELP:
		st->help = true;
		argp_help(st->argp, stdout, ARGP_HELP_STD_HELP & ~(unsigned int)ARGP_HELP_EXIT_OK,
			  st->name);
		state->next = state->argc;
		return 0;
	case ARGP_KEY_ARG:
		return opts_bad(st, "unexpected word '%.60s' (try %s --help)", arg, st->name);
	case ARGP_KEY_ERROR:
		if (!st->explained && state->next > 0 && state->next <= state->argc)
			explain_option(st, state->argv[state->next - 1]);
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

/* What no single option can say. */
static int opts_together(struct opts_state *st)
{
	struct fleet_config *c = st->c;
	const struct ksm_engine_ops *off = ksm_engine_find("off"), *hash = ksm_engine_find("hash");
	const struct ksm_engine_ops *kernel = ksm_engine_find("kernel");
	bool has_hash = false, has_off = false, has_kernel = false;

	for (unsigned int i = 0; i < c->nsharing; i++) {
		has_hash |= c->sharing[i] == hash;
		has_off |= c->sharing[i] == off;
		has_kernel |= c->sharing[i] == kernel;
	}
	if (opts_wset_together(c, st->given, st->e))
		return EINVAL;
	if (opts_together_live(st))
		return EINVAL;
	if (c->guests == 1 && c->nworkloads > 1)
		return opts_bad(st, "--workload: %u names for one guest", c->nworkloads);
	if (opts_together_pages(c, st->e) || opts_together_host_mem(c, st->e)) {
		st->explained = true;
		return EINVAL;
	}
	if (c->inject && !has_hash)
		return opts_bad(
			st, "--inject plants a fault in our own merging; it needs --sharing hash");
	if (c->scan_gap_ms && !has_hash)
		return opts_bad(st, "--scan-gap is of our own merging; it needs --sharing hash");
	if (st->given->ksm && !has_kernel)
		return opts_bad(st,
				"--ksm says how Linux KSM is driven; it needs --sharing kernel");
	if (st->compare && !has_off) { /* no experiment without its control */
		if (c->nsharing == FLEET_MAX_MODES)
			return opts_bad(st, "--sharing: more than %d modes, with the control",
					FLEET_MAX_MODES);
		memmove(c->sharing + 1, c->sharing, c->nsharing * sizeof(c->sharing[0]));
		c->sharing[0] = off;
		c->nsharing++;
	}
	if (opts_together_domains(c, st->given, st->e)) {
		st->explained = true;
		return EINVAL;
	}
	return 0;
}

enum opts_outcome opts_parse(struct fleet_config *c, struct opts_given *given, const char *verb,
			     int argc, char **argv, struct ob_err *e)
{
	static const char *const docs[] = {
		"Boot one guest, its console on the terminal.",
		"Boot many guests under one sharing mode and measure their memory.",
		"Run the same guests under several sharing modes, the control (off) included.",
	};
	bool run = strcmp(verb, "run") == 0, compare = strcmp(verb, "compare") == 0;
	const struct argp argp = {.options = run ? opts_run : opts_many,
				  .parser = opts_option,
				  .doc = docs[run	? 0
					      : compare ? 2
							: 1]};
	struct opts_state st = {.c = c, .given = given, .e = e, .argp = &argp, .compare = compare};

	snprintf(st.name, sizeof(st.name), "overbook %.16s", verb);
	*given = (struct opts_given){0};
	*c = (struct fleet_config){
		.guests = run ? 1 : 16,
		.mem_bytes = 64 * OB_MIB,
		.workload = {"kv"},
		.nworkloads = 1,
		.seconds = 10,
		.seed = 1,
		.cell = FLEET_DEFAULT_CELL,
		.ksm_cpu_percent = KSM_BUDGET_DEFAULT_PERCENT,
		.io_hints = true,
		.max_pause_us = FLEET_DEFAULT_PAUSE,
		.wset = {.samples = EPT_WSET_SAMPLES, .period_ns = EPT_WSET_PERIOD_NS},
	};
	if (compare) {
		c->sharing[c->nsharing++] = ksm_engine_find("off");
		c->sharing[c->nsharing++] = ksm_engine_find("hash");
		c->sharing[c->nsharing++] = ksm_engine_find("kernel");
	} else {
		c->sharing[c->nsharing++] = ksm_engine_find(run ? "off" : "hash");
	}

	/* argp says nothing and does not exit: what is wrong is in @e. */
	if (argp_parse(&argp, argc, argv, ARGP_NO_ERRS | ARGP_NO_EXIT | ARGP_NO_HELP, NULL, &st))
		return OPTS_BAD;
	if (st.help)
		return OPTS_HELP;
	return opts_together(&st) ? OPTS_BAD : OPTS_OK;
}
