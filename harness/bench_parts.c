/* SPDX-License-Identifier: Apache-2.0 */
/* bench_parts.c: what the benchmarks that are made of parts have in common (bench_parts.h). */
#include "harness/bench_parts.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "harness/bench_child.h"
#include "harness/opts.h"

int bench_take_words(const struct bench_words *w, struct bench *b, bool *quick, const char **only,
		     int argc, char **argv)
{
	*only = NULL;
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--help")) {
			w->usage(stdout);
			return -1;
		}
		if (!strcmp(argv[i], "--quick")) {
			*quick = true;
		} else if (strcmp(argv[i], "--only") != 0) {
			ob_warn("bench %s: unknown option '%.40s' (try overbook bench %s --help)",
				w->name, argv[i], w->name);
			return OB_EXIT_USAGE;
		} else if (i + 1 == argc) {
			ob_warn("bench %s: --only needs a part%s", w->name, w->one_of);
			return OB_EXIT_USAGE;
		} else {
			*only = argv[++i];
		}
	}
	if (*only && !w->has_part(*only)) {
		ob_warn("bench %s: no part '%.40s'%s", w->name, *only, w->there_are);
		return OB_EXIT_USAGE;
	}
	snprintf(b->name, sizeof(b->name), "%s%s", w->name, *quick || *only ? "-try" : "");
	return 0;
}

int bench_check(struct fleet_config *files, char exe[PATH_MAX], unsigned int needs,
		struct ob_err *e)
{
	struct opts_host host;
	ssize_t n = readlink("/proc/self/exe", exe, PATH_MAX - 1);
	int ret;

	if (n <= 0)
		return ob_fail(e, EIO, "cannot read /proc/self/exe: is /proc mounted?");
	exe[n] = '\0';
	ret = opts_host_read(&host, e);
	if (!ret)
		ret = opts_check_kvm(host.kvm_path, e);
	if (!ret && needs & BENCH_NEEDS_KSM)
		ret = opts_check_ksm(host.ksm_dir, e);
	if (!ret)
		ret = opts_default_paths(files, exe, e);
	if (!ret)
		ret = opts_check_kernel(files->kernel_path, e);
	if (!ret && needs & BENCH_NEEDS_IMAGE)
		ret = opts_check_image(files->image_path, e);
	return ret;
}

int bench_end(const struct bench_words *w, struct bench *b, uint64_t begin_ns, int ret,
	      struct ob_err *e)
{
	if (!ret)
		ret = bench_finish(b, BENCH_DIR, e);
	bench_say("took %.0f s", (double)(bench_now_ns() - begin_ns) / OB_NS_PER_SEC);
	if (!ret)
		return OB_EXIT_OK;
	ob_warn("bench %s: %s; no figure is written", w->name, e->msg);
	return ob_stop_signal ? OB_EXIT_INTERRUPTED : OB_EXIT_FAILED;
}
