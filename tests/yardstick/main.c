/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main.c: the yardstick's command line. One line of JSON on standard output, exit status 0; or one
 * line on standard error, 1 when it could not measure, 2 for bad words.
 */
#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/yardstick/yardstick.h"

#define SCHEMA "overbook.yardstick/1"

static const struct {
	const char *name;
	int (*run)(const struct yard_opts *o, json_t *doc, struct ob_err *e);
} verbs[] = {{"first", yard_first}, {"fault", yard_fault}, {"move", yard_moves}};

static void usage(void)
{
	puts("Usage: yardstick first|fault|move [OPTION...]\n"
	     "The references of `overbook bench ept`: what bare system calls cost.\n"
	     "  first            first touches of a guest's memory\n"
	     "  fault            one page out, touched by the guest, moved back by its handler\n"
	     "  move             all pages out and back under a guest that counts in them\n"
	     "  --mem SIZE       of the guest: 16M to 3G (first: 1T), default 256M\n"
	     "  --samples N      fault: how many touches (default 2000)\n"
	     "  --seconds N      move: how long (default 5)\n"
	     "  --cpu N          CPU of the vCPU and of its handler (default: any)\n"
	     "  --kernel FILE    the guest (default: microguest.elf beside this program)\n"
	     "  --out-fd N       print there and not on standard output");
}

/* A whole number from @least to @most, with @units (may be "") that multiply it by 1024 each. */
static int number(const char *opt, const char *s, const char *units, uint64_t least, uint64_t most,
		  uint64_t *out, struct ob_err *e)
{
	size_t digits = strspn(s, "0123456789");
	uint64_t v = digits && digits < 12 ? strtoull(s, NULL, 10) : 0;
	const char *unit = s[digits] ? strchr(units, s[digits]) : NULL;

	if (unit)
		v <<= 10 * (unit - units + 1);
	if (!digits || digits >= 12 || (s[digits] && (!unit || s[digits + 1])) || v < least ||
	    v > most)
		return ob_fail(e, EINVAL, "%s %.40s: not a number from %llu to %llu", opt, s,
			       (unsigned long long)least, (unsigned long long)most);
	*out = v;
	return 0;
}

static int option(struct yard_opts *o, const char *opt, const char *value, struct ob_err *e)
{
	uint64_t v = 0;
	int ret;

	if (strcmp(opt, "--mem") == 0) {
		ret = number(opt, value, "KMGT", 16 * OB_MIB, 1024 * OB_GIB, &v, e);
		o->mem_bytes = v / OB_PAGE_SIZE * OB_PAGE_SIZE;
	} else if (strcmp(opt, "--samples") == 0) {
		ret = number(opt, value, "", 1, 1000000, &o->samples, e);
	} else if (strcmp(opt, "--seconds") == 0) {
		ret = number(opt, value, "", 1, 3600, &o->seconds, e);
	} else if (strcmp(opt, "--cpu") == 0) {
		ret = number(opt, value, "", 0, CPU_SETSIZE - 1, &v, e);
		o->cpu = (int)v;
	} else if (strcmp(opt, "--out-fd") == 0) {
		ret = number(opt, value, "", 0, 1 << 20, &v, e);
		o->out_fd = (int)v;
	} else if (strcmp(opt, "--kernel") == 0) {
		o->kernel_path = value;
		ret = 0;
	} else {
		ret = ob_fail(e, EINVAL, "unknown option '%.40s' (try yardstick --help)", opt);
	}
	return ret;
}

static int default_kernel(struct yard_opts *o, struct ob_err *e)
{
	char exe[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);

	if (n <= 0)
		return ob_fail(e, EIO, "cannot read /proc/self/exe: is /proc mounted?");
	exe[n] = '\0';
	snprintf(o->kernel_buf, sizeof(o->kernel_buf), "%.4000s/microguest.elf", dirname(exe));
	o->kernel_path = o->kernel_buf;
	return 0;
}

/* Index of the verb, or -errno with a line. */
static int parse(struct yard_opts *o, int argc, char **argv, struct ob_err *e)
{
	int verb = -1, ret = 0;

	*o = (struct yard_opts){
		.mem_bytes = 256 * OB_MIB,
		.samples = 2000,
		.seconds = 5,
		.cpu = -1,
		.out_fd = STDOUT_FILENO,
	};
	for (size_t i = 0; argc > 1 && i < OB_ARRAY_SIZE(verbs); i++)
		if (strcmp(argv[1], verbs[i].name) == 0)
			verb = (int)i;
	if (verb < 0)
		return ob_fail(e, EINVAL, "%s%.40s%s (try yardstick --help)",
			       argc > 1 ? "unknown word '" : "first, fault or move?",
			       argc > 1 ? argv[1] : "", argc > 1 ? "'" : "");
	o->what = verbs[verb].name;
	for (int i = 2; i < argc && !ret; i += 2)
		ret = i + 1 < argc
			      ? option(o, argv[i], argv[i + 1], e)
			      : ob_fail(e, EINVAL, "%.40s: needs a value, or is unknown", argv[i]);
	if (!ret && verb > 0 && o->mem_bytes > 3 * OB_GIB)
		ret = ob_fail(e, EINVAL, "--mem: %s takes at most 3G, above it memory has a hole",
			      o->what);
	if (!ret && !o->kernel_path)
		ret = default_kernel(o, e);
	return ret ? ret : verb;
}

int main(int argc, char **argv)
{
	struct ob_err e = {""};
	struct yard_opts o;
	json_t *doc;
	int verb, ret;

	if (argc == 2 && strcmp(argv[1], "--help") == 0) {
		usage();
		return 0;
	}
	verb = parse(&o, argc, argv, &e);
	if (verb < 0) {
		ob_warn("yardstick: %s", e.msg);
		return 2;
	}
	doc = json_pack("{s:s,s:s,s:I,s:i}", "schema", SCHEMA, "yardstick", o.what, "mem_bytes",
			(json_int_t)o.mem_bytes, "cpu", o.cpu);
	OB_ASSERT(doc);
	ret = verbs[verb].run(&o, doc, &e);
	if (ret) {
		ob_warn("yardstick %s: %s", o.what, e.msg);
	} else if (json_dumpfd(doc, o.out_fd, JSON_COMPACT) || write(o.out_fd, "\n", 1) != 1) {
		ob_warn("yardstick %s: cannot write what was measured: %s", o.what,
			strerror(errno));
		ret = -EIO;
	}
	json_decref(doc);
	return ret ? 1 : 0;
}
