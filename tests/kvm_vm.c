/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvm_vm.c: virtual machines through the library: parking, stopping, two guests on one host frame,
 * and disk reads that are on their way while their target is being merged.
 */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "ksm/ksm.h"
#include "tests/cli.h"

#define MEM    (16 * OB_MIB)
#define GUESTS 2

#define NEED_KVM()                                                    \
	do {                                                          \
		if (!cli_have_kvm())                                  \
			cr_skip_test("no /dev/kvm that we may open"); \
	} while (0)

/* A cell's worth of guests in this process, with a domain of their own. */
struct rig {
	struct ob_host host;
	struct kvm kvm;
	struct ob_arena *arena;
	struct io_worker *worker;
	struct ksm_domain *coord, *domain;
	int pool_fd, meta_fd, image_fd;
	void *kernel;
	size_t kernel_len;
	struct vm *vm[GUESTS];
	struct ept ept[GUESTS];
	struct ksm *k;
	pthread_t scanner;
	_Atomic bool scan;
};

static void park(void *arg)
{
	vm_park(arg);
}

static void unpark(void *arg)
{
	vm_unpark(arg);
}

static void nap_ms(long ms)
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

static void rig_make(struct rig *r, const char *workload)
{
	const struct ksm_opts opts = {.pass_gap_ns = OB_NS_PER_MS};
	struct ob_err e;

	memset(r, 0, sizeof(*r));
	cr_assert(!ob_host_linux_init(&r->host, &e), "%s", e.msg);
	cr_assert(!kvm_open(&r->kvm, &e), "%s", e.msg);
	cr_assert(!io_worker_start(&r->worker));
	r->arena = ob_arena_new("test");
	load_kernel(r);
	cr_assert(!ksm_domain_create(&r->host, GUESTS * MEM / OB_PAGE_SIZE, 1, &r->pool_fd,
				     &r->meta_fd));
	cr_assert(!ksm_domain_open(&r->host, r->pool_fd, r->meta_fd, KSM_NO_CELL, r->arena,
				   &r->coord));
	cr_assert(!ksm_domain_open(&r->host, r->pool_fd, r->meta_fd, 0, r->arena, &r->domain));
	cr_assert(!ksm_new(&r->k, ksm_engine_find("hash"), &r->host, r->domain, &opts, r->arena));
	for (unsigned int i = 0; i < GUESTS; i++) {
		char cmdline[128];
		struct vm_config cfg = {
			.id = i,
			.mem_bytes = MEM,
			.kernel = r->kernel,
			.kernel_len = r->kernel_len,
			.cmdline = cmdline,
			.disk_fd = r->image_fd,
			.console_fd = -1,
			.worker = r->worker,
		};

		snprintf(cmdline, sizeof(cmdline), "workload=%s seed=%u common=1 guest=%u",
			 workload, i + 1, i);
		cr_assert(!vm_create(&r->vm[i], &r->kvm, &r->host, &cfg, &e), "%s", e.msg);
		cr_assert(!ept_init(
			&r->ept[i], &r->host, &r->vm[i]->mem,
			(struct ept_parker){.park = park, .unpark = unpark, .arg = r->vm[i]},
			r->arena));
		cr_assert(!ksm_add_guest(r->k, &(struct ksm_guest){
						       .ept = &r->ept[i],
						       .vm = i,
						       .page_base = i * MEM / OB_PAGE_SIZE,
					       }));
	}
}

static struct agent_report report(struct rig *r, unsigned int i)
{
	struct agent_report rep = {0};

	agent_read_report(&r->vm[i]->agent, &rep);
	return rep;
}

static void rig_start(struct rig *r)
{
	struct ob_err e;

	for (unsigned int i = 0; i < GUESTS; i++)
		cr_assert(!vm_start(r->vm[i], &e), "%s", e.msg);
	for (unsigned int i = 0; i < GUESTS; i++)
		while (report(r, i).phase < AGENT_WARM) {
			cr_assert_eq(atomic_load(&r->vm[i]->state), VM_RUNNING, "%s",
				     r->vm[i]->reason);
			nap_ms(5);
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

static void scan_for(struct rig *r, long ms)
{
	r->scan = true;
	cr_assert(!pthread_create(&r->scanner, NULL, scanner, r));
	nap_ms(ms);
	r->scan = false;
	pthread_join(r->scanner, NULL);
}

static void rig_unmake(struct rig *r)
{
	struct ksm_domain_stats st;

	ksm_stop(r->k);
	for (unsigned int i = 0; i < GUESTS; i++) {
		vm_stop(r->vm[i]);
		cr_assert_eq(r->vm[i]->end, VM_END_ASKED, "guest %u: %s", i, r->vm[i]->reason);
		cr_assert_eq(report(r, i).mismatches, 0, "guest %u", i);
		virtio_blk_exit(&r->vm[i]->blk);
		r->vm[i]->has_blk = false;
		ept_check(&r->ept[i]);
		ksm_remove_guest(r->k, i);
		ept_exit(&r->ept[i]);
		vm_destroy(r->vm[i]);
	}
	for (int i = 0; i < 2; i++)
		cr_assert(ksm_domain_reap(r->coord, UINT64_MAX) >= 0);
	cr_assert(!ksm_domain_stats(r->coord, &st));
	cr_assert_eq(st.live + st.filling, 0, "frames left behind");
	cr_assert_eq(st.pool_blocks_bytes, 0, "blocks of the pool left behind");
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

Test(vm, parked_guest_stands_still, .timeout = 60)
{
	struct agent_report a, b;
	struct rig r;

	NEED_KVM();
	rig_make(&r, "kv");
	rig_start(&r);
	vm_park(r.vm[0]);
	vm_park(r.vm[0]); /* parks nest */
	vm_unpark(r.vm[0]);
	a = report(&r, 0);
	nap_ms(100);
	b = report(&r, 0);
	cr_assert(!memcmp(&a, &b, sizeof(a)), "a parked guest has written");
	vm_unpark(r.vm[0]);
	for (int i = 0; i < 1000 && report(&r, 0).heartbeat == b.heartbeat; i++)
		nap_ms(5);
	cr_assert_gt(report(&r, 0).heartbeat, b.heartbeat, "it did not go on");
	rig_unmake(&r);
}

Test(vm, parks_and_releases_ten_thousand_times, .timeout = 120)
{
	uint64_t before;
	struct rig r;

	NEED_KVM();
	rig_make(&r, "kv");
	rig_start(&r);
	before = report(&r, 0).heartbeat;
	for (int i = 0; i < 10000; i++) {
		vm_park(r.vm[i % GUESTS]);
		vm_unpark(r.vm[i % GUESTS]);
	}
	for (int i = 0; i < 1000 && report(&r, 0).heartbeat == before; i++)
		nap_ms(5);
	cr_assert_gt(report(&r, 0).heartbeat, before);
	rig_unmake(&r);
}

Test(vm, stops_while_parked_and_while_asleep, .timeout = 60)
{
	struct rig r;

	NEED_KVM();
	rig_make(&r, "idle");
	rig_start(&r);
	vm_park(r.vm[0]);
	vm_stop(r.vm[0]); /* must not wait for the release */
	vm_unpark(r.vm[0]);
	vm_stop(r.vm[1]);
	vm_stop(r.vm[1]); /* twice is fine */
	rig_unmake(&r);
}

/* Two guests share a page: one host frame. One writes: the other does not see it. */
Test(vm, shared_page_is_one_host_frame, .timeout = 60)
{
	struct ob_page a, b;
	uint8_t before[OB_PAGE_SIZE], other[OB_PAGE_SIZE];
	uint64_t pa = UINT64_MAX, pb = 0, pages = MEM / OB_PAGE_SIZE;
	struct rig r;
	hva_t at[2];

	NEED_KVM();
	rig_make(&r, "idle");
	rig_start(&r);
	if (!r.host.knows_pfn)
		cr_skip_test("host frame numbers need CAP_SYS_ADMIN");
	scan_for(&r, 1500);
	for (int i = 0; i < GUESTS; i++)
		vm_park(r.vm[i]);
	for (uint64_t p = 0; p < pages && pa == UINT64_MAX; p++) {
		uint32_t f = ept_frame_of(&r.ept[0], p);

		for (uint64_t q = 0; f != EPT_NO_FRAME && q < pages; q++)
			if (ept_frame_of(&r.ept[1], q) == f) {
				pa = p;
				pb = q;
				break;
			}
	}
	cr_assert_neq(pa, UINT64_MAX, "no page is shared");
	at[0] = gmem_page_hva(&r.vm[0]->mem, pa);
	at[1] = gmem_page_hva(&r.vm[1]->mem, pb);
	memcpy(before, hva_ptr(at[0]), OB_PAGE_SIZE);
	cr_assert(!memcmp(before, hva_ptr(at[1]), OB_PAGE_SIZE));
	cr_assert(!r.host.ops->pages(&r.host, at[0], 1, &a));
	cr_assert(!r.host.ops->pages(&r.host, at[1], 1, &b));
	cr_assert(a.present && a.file && a.pfn);
	cr_assert_eq(a.pfn, b.pfn, "one page, two host frames");

	/* A write as a device does it, with the first byte changed. */
	other[0] = (uint8_t)~before[0];
	cr_assert(!gmem_write(&r.vm[0]->mem, gfn_gpa(gmem_page_gfn(&r.vm[0]->mem, pa)), other, 1));
	cr_assert(!r.host.ops->pages(&r.host, at[0], 1, &a));
	cr_assert_neq(a.pfn, b.pfn, "the write went to the shared frame");
	cr_assert_eq(*(uint8_t *)hva_ptr(at[0]), other[0]);
	cr_assert(!memcmp(before, hva_ptr(at[1]), OB_PAGE_SIZE), "the other guest sees the write");
	cr_assert(!ept_sync(&r.ept[0], pa, 1, NULL));
	cr_assert_eq(ept_state_of(&r.ept[0], pa), EPT_PRIVATE);
	/* As it was, before the guest looks. */
	cr_assert(!gmem_write(&r.vm[0]->mem, gfn_gpa(gmem_page_gfn(&r.vm[0]->mem, pa)), before, 1));
	for (int i = 0; i < GUESTS; i++)
		vm_unpark(r.vm[i]);
	rig_unmake(&r);
}

/* Guests read files again and again into memory that is being merged,
 * each read held up half way. */
Test(vm, disk_reads_in_flight_while_merging, .timeout = 120)
{
	struct ept_stats st;
	uint64_t met = 0, disk[GUESTS];
	struct ksm_stats k;
	struct rig r;

	NEED_KVM();
	rig_make(&r, "filecache");
	rig_start(&r);
	for (unsigned int i = 0; i < GUESTS; i++) {
		atomic_store(&r.vm[i]->blk.delay_ns, 2 * OB_NS_PER_MS);
		disk[i] = report(&r, i).disk_pages;
	}
	/* Until merging and reading have met: pages left out of a freeze, or reads that waited for
	 * one. And at least for a while. */
	for (int i = 0; i < 60 && (i < 6 || met < 3); i++) {
		scan_for(&r, 500);
		met = 0;
		for (unsigned int g = 0; g < GUESTS; g++) {
			ept_read_stats(&r.ept[g], &st);
			met += st.dma_left_out + st.dma_waits;
		}
	}
	cr_assert_gt(met, 0, "no read was ever under way in a frozen range");
	ksm_read_stats(r.k, &k);
	cr_assert_gt(k.merged_pages, 500);
	for (unsigned int i = 0; i < GUESTS; i++) {
		cr_assert_gt(report(&r, i).disk_pages, disk[i]);
		atomic_store(&r.vm[i]->blk.delay_ns, 0);
	}
	/* Let the guests look at what they have got. */
	nap_ms(1000);
	rig_unmake(&r);
}
