/* SPDX-License-Identifier: Apache-2.0 */
/* rig.c: see rig.h. */
#include "tests/rig.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "harness/harness.h"

static void park(void *arg)
{
	vm_park(arg);
}

static void unpark(void *arg)
{
	vm_unpark(arg);
}

static int cpu(void *arg)
{
	return vm_cpu(arg);
}

static void fail(void *arg, const char *why)
{
	vm_fail(arg, "%s", why);
}

void rig_nap_ms(long ms)
{
	struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

	nanosleep(&ts, NULL);
}

static void load_kernel(struct rig *r)
{
	char path[600];
	struct stat st;
	int fd;

	snprintf(path, sizeof(path), "%s/microguest.elf", cli_build());
	fd = open(path, O_RDONLY | O_CLOEXEC);
	cr_assert(fd >= 0 && !fstat(fd, &st), "%s", path);
	r->kernel_len = (size_t)st.st_size;
	r->kernel = malloc(r->kernel_len);
	cr_assert_eq(read(fd, r->kernel, r->kernel_len), (ssize_t)r->kernel_len);
	close(fd);
	snprintf(path, sizeof(path), "%s/guest.img", cli_build());
	r->image_fd = open(path, O_RDONLY | O_CLOEXEC);
	cr_assert(r->image_fd >= 0, "%s", path);
}

void rig_guest_make(struct rig *r, unsigned int i)
{
	char cmdline[160], words[96];
	struct vm_config cfg = {
		.id = i,
		.mem_bytes = RIG_MEM,
		.kernel = r->kernel,
		.kernel_len = r->kernel_len,
		.cmdline = cmdline,
		.disk[0].fd = r->image_fd,
		.ndisks = r->image_fd >= 0,
		.console_fd = -1,
		.worker = r->worker,
		.huge = r->opts.huge != NULL,
	};
	struct ob_err e;

	opts_workload_words(r->opts.workload, words, sizeof(words));
	snprintf(cmdline, sizeof(cmdline), "%s seed=%u common=1 guest=%u", words, i + 1, i);
	cr_assert(!vm_create(&r->vm[i], &r->kvm, &r->host, &cfg, &e), "%s", e.msg);
	cr_assert(!ept_init(
		&r->ept[i], &r->host, &r->vm[i]->mem,
		(struct ept_parker){
			.park = park, .unpark = unpark, .cpu = cpu, .fail = fail, .arg = r->vm[i]},
		r->arena));
	if (r->opts.huge)
		ept_huge_set_rule(&r->ept[i], r->opts.huge);
	ept_track_init(&r->track[i], ept_log_kvm(r->vm[i]), &r->vm[i]->mem, r->arena);
	ept_track_attach(&r->ept[i], &r->track[i]);
	cr_assert(!ksm_add_guest(r->k, &(struct ksm_guest){
					       .ept = &r->ept[i],
					       .vm = i,
					       .page_base = i * RIG_MEM / OB_PAGE_SIZE,
					       .track = r->opts.untracked ? NULL : &r->track[i],
				       }));
}

void rig_make_opts(struct rig *r, const struct rig_opts *o)
{
	const struct ksm_opts opts = {.pass_gap_ns = OB_NS_PER_MS, .inject = o->inject};
	struct ob_err e;

	memset(r, 0, sizeof(*r));
	r->opts = *o;
	cr_assert(!ob_host_linux_init(&r->host, &e), "%s", e.msg);
	if (o->huge && ob_host_linux_huge(&r->host))
		cr_skip_test("this kernel has no transparent huge pages");
	cr_assert(!kvm_open(&r->kvm, &e), "%s", e.msg);
	cr_assert(!io_worker_start(&r->worker));
	r->arena = ob_arena_new("test");
	load_kernel(r);
	cr_assert(!ksm_domain_create(&r->host, RIG_GUESTS * RIG_MEM / OB_PAGE_SIZE, 1, &r->pool_fd,
				     &r->meta_fd));
	cr_assert(!ksm_domain_open(&r->host, r->pool_fd, r->meta_fd, KSM_NO_CELL, r->arena,
				   &r->coord));
	cr_assert(!ksm_domain_open(&r->host, r->pool_fd, r->meta_fd, 0, r->arena, &r->domain));
	cr_assert(!ksm_new(&r->k, ksm_engine_find("hash"), &r->host, r->domain, &opts, r->arena));
	for (unsigned int i = 0; i < RIG_GUESTS; i++)
		rig_guest_make(r, i);
}

void rig_make(struct rig *r, const char *workload)
{
	rig_make_opts(r, &(struct rig_opts){.workload = workload});
}

void rig_make_huge(struct rig *r, const char *workload, const struct ept_huge_rule *rule)
{
	rig_make_opts(r, &(struct rig_opts){.workload = workload, .huge = rule});
}

struct agent_report rig_report(struct rig *r, unsigned int i)
{
	struct agent_report rep = {0};

	agent_read_report(&r->vm[i]->agent, &rep);
	return rep;
}

void rig_start(struct rig *r)
{
	struct ob_err e;

	for (unsigned int i = 0; i < RIG_GUESTS; i++)
		cr_assert(!vm_start(r->vm[i], &e), "%s", e.msg);
	for (unsigned int i = 0; i < RIG_GUESTS; i++)
		while (rig_report(r, i).phase < AGENT_WARM) {
			cr_assert_eq(atomic_load(&r->vm[i]->state), VM_RUNNING, "%s",
				     r->vm[i]->reason);
			rig_nap_ms(5);
		}
	cr_assert(!ksm_start(r->k, &e));
}

static void *scanner(void *arg)
{
	struct rig *r = arg;

	while (r->scan)
		if (ksm_step(r->k, r->host.ops->now_ns(&r->host), 512))
			ksm_domain_reap(r->coord, UINT64_MAX);
	return NULL;
}

void rig_scan_start(struct rig *r)
{
	r->scan = true;
	cr_assert(!pthread_create(&r->scanner, NULL, scanner, r));
}

void rig_scan_stop(struct rig *r)
{
	r->scan = false;
	pthread_join(r->scanner, NULL);
}

void rig_scan_for(struct rig *r, long ms)
{
	rig_scan_start(r);
	rig_nap_ms(ms);
	rig_scan_stop(r);
}

void rig_guest_unmake(struct rig *r, unsigned int i)
{
	struct agent_report rep;
	struct ept_verify v;

	vm_stop(r->vm[i]);
	rep = rig_report(r, i);
	r->mismatches += rep.mismatches;
	r->checked += OB_MAX(rep.checked_pages, rep.ops);
	vm_detach(r->vm[i]);
	if (!r->opts.inject) {
		cr_assert_eq(r->vm[i]->end, VM_END_ASKED, "guest %u: %s", i, r->vm[i]->reason);
		cr_assert_eq(rep.mismatches, 0, "guest %u", i);
		cr_assert(!ept_verify(&r->ept[i], &v));
		cr_assert_eq(v.differences, 0, "guest %u: %llu pages of %llu differ, page %llu: %s",
			     i, (unsigned long long)v.differences, (unsigned long long)v.pages,
			     (unsigned long long)v.first[0].page, v.first[0].why);
	}
	ksm_remove_guest(r->k, i);
	ept_track_attach(&r->ept[i], NULL);
	ept_track_exit(&r->track[i]);
	ept_exit(&r->ept[i]);
	vm_destroy(r->vm[i]);
	r->vm[i] = NULL;
}

void rig_unmake(struct rig *r)
{
	struct ksm_domain_stats st;

	ksm_stop(r->k);
	for (unsigned int i = 0; i < RIG_GUESTS; i++)
		if (r->vm[i])
			rig_guest_unmake(r, i);
	for (int i = 0; i < 2; i++)
		cr_assert(ksm_domain_reap(r->coord, UINT64_MAX) >= 0);
	cr_assert(!ksm_domain_stats(r->coord, &st));
	/* A planted lost write keeps its frame for ever. */
	if (!(r->opts.inject & KSM_INJECT_LOSE_BREAK)) {
		cr_assert_eq(st.live + st.filling, 0, "frames left behind");
		cr_assert_eq(st.entries, 0, "the index names frames that are gone");
		cr_assert_eq(st.pool_blocks_bytes, 0, "blocks of the pool left behind");
	}
	ksm_free(r->k);
	ksm_domain_close(r->domain);
	ksm_domain_close(r->coord);
	io_worker_stop(r->worker);
	close(r->pool_fd);
	close(r->meta_fd);
	close(r->image_fd);
	kvm_close(&r->kvm);
	free(r->kernel);
	cr_assert_eq(ob_arena_bytes(r->arena), 0);
	ob_arena_free(r->arena);
	ob_host_linux_exit(&r->host);
}
