/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvm_track.c: write tracking under a guest that writes pages at random and as fast as it is told
 * to: no write may be missed (ept/track_check.h says how that is seen). The guest is a dozen
 * instructions in ring 3, with counters for content; the kernel file that the VM was made from is
 * not run.
 */
#include <criterion/criterion.h>
#include <criterion/logging.h>
#include <errno.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "ept/ept.h"
#include "ept/scan.h"
#include "ept/track_check.h"
#include "harness/bench_rig.h"
#include "kernel/vcpu.h"
#include "tests/bed.h"

#define MEM	   (16 * OB_MIB)
#define TABLES_GPA 0x10000ULL
#define CODE_GPA   0x20000ULL
#define AREA_GPA   (4 * OB_MIB) /* what the guest writes */
#define AREA_PAGES 2048
#define WORDS	   (AREA_PAGES / 64)
#define WRITTEN	   10000 /* pages, at least, before a run of passes may end */

/*
 * The guest, for ever: a page at random, its first word incremented; another page read; a while of
 * nothing. r8: address of the area, r9: mask of page numbers, r10: state of the generator
 * (xorshift), r11: how long to do nothing.
 */
extern const uint8_t writer_start[], writer_end[];
__asm__(".pushsection .rodata\n"
	"writer_start:\n"
	"1:	movq	%r10, %rax\n"
	"	shlq	$13, %rax\n"
	"	xorq	%rax, %r10\n"
	"	movq	%r10, %rax\n"
	"	shrq	$7, %rax\n"
	"	xorq	%rax, %r10\n"
	"	movq	%r10, %rax\n"
	"	shlq	$17, %rax\n"
	"	xorq	%rax, %r10\n"
	"	movq	%r10, %rax\n"
	"	andq	%r9, %rax\n"
	"	shlq	$12, %rax\n"
	"	incq	(%r8,%rax)\n"
	"	movq	%r10, %rax\n"
	"	shrq	$32, %rax\n"
	"	andq	%r9, %rax\n"
	"	shlq	$12, %rax\n"
	"	movq	(%r8,%rax), %rax\n"
	"	movq	%r11, %rcx\n"
	"2:	decq	%rcx\n"
	"	jnz	2b\n"
	"	jmp	1b\n"
	"writer_end:\n"
	".popsection\n");

struct rig {
	struct bed bed;
	struct vm *vm; /* the bed's */
	struct ob_arena *arena;
	struct ept ept;
	struct ept_track track;
	int consumer;
	struct ept_track_check check;
	uint64_t area; /* its first page */
	/* A device that writes the second word of pages. */
	pthread_t device;
	pthread_mutex_t device_lock; /* held over each of its accesses, and over snapshots */
	_Atomic bool stop;
	_Atomic uint64_t device_writes;
};

static void park(void *vm)
{
	vm_park(vm);
}

static void unpark(void *vm)
{
	vm_unpark(vm);
}

/* 64-bit mode, ring 3, memory mapped one to one in 2 MiB pages, accessed and dirty bits preset. */
static void enter_ring3(struct rig *r, uint64_t spin, uint64_t seed)
{
	const struct kvm_segment code = {
		.selector = 0x33, .type = 0xb, .present = 1, .dpl = 3, .s = 1, .l = 1, .g = 1};
	const struct kvm_segment data = {.limit = 0xffffffff,
					 .selector = 0x2b,
					 .type = 0x3,
					 .present = 1,
					 .dpl = 3,
					 .db = 1,
					 .s = 1,
					 .g = 1};
	struct kvm_regs regs = {.rip = CODE_GPA,
				.rflags = 2,
				.r8 = AREA_GPA,
				.r9 = AREA_PAGES - 1,
				.r10 = seed,
				.r11 = spin};
	uint64_t *table = gmem_ptr(&r->vm->mem, gpa(TABLES_GPA), 3 * OB_PAGE_SIZE);
	int fd = r->vm->vcpu[0].fd;
	struct kvm_sregs s;

	memset(table, 0, 3 * OB_PAGE_SIZE);
	table[0] = (TABLES_GPA + OB_PAGE_SIZE) | 0x67;
	table[512] = (TABLES_GPA + 2 * OB_PAGE_SIZE) | 0x67;
	for (uint64_t i = 0; i < 512; i++)
		table[1024 + i] = i * 2 * OB_MIB | 0xe7;
	memcpy(gmem_ptr(&r->vm->mem, gpa(CODE_GPA), OB_PAGE_SIZE), writer_start,
	       (size_t)(writer_end - writer_start));
	cr_assert(!ioctl(fd, KVM_GET_SREGS, &s));
	s.cs = code;
	s.ds = s.es = s.fs = s.gs = s.ss = data;
	s.cr0 = 0x80010011; /* PG, WP, ET, PE */
	s.cr3 = TABLES_GPA;
	s.cr4 = 0x20;	/* PAE */
	s.efer = 0x500; /* LMA, LME */
	cr_assert(!ioctl(fd, KVM_SET_SREGS, &s));
	cr_assert(!ioctl(fd, KVM_SET_REGS, &regs));
}

static void rig_make(struct rig *r, uint64_t slot_bytes, uint64_t spin)
{
	memset(r, 0, sizeof(*r));
	bed_microguest(&r->bed, (struct vm_config){.mem_bytes = MEM,
						   .cmdline = "",
						   .console_fd = -1,
						   .slot_bytes = slot_bytes});
	r->vm = r->bed.vm;
	r->arena = ob_arena_new("test");
	cr_assert_eq(r->vm->mem.nslots, slot_bytes ? MEM / slot_bytes : 1);
	cr_assert(!ept_init(&r->ept, &r->bed.host, &r->vm->mem,
			    (struct ept_parker){.park = park, .unpark = unpark, .arg = r->vm},
			    r->arena));
	ept_track_init(&r->track, ept_log_kvm(r->vm), &r->vm->mem, r->arena);
	ept_track_attach(&r->ept, &r->track);
	r->area = gmem_gfn_page(&r->vm->mem, gpa_gfn(gpa(AREA_GPA)));
	memset(gmem_ptr(&r->vm->mem, gpa(AREA_GPA), AREA_PAGES * OB_PAGE_SIZE), 0,
	       AREA_PAGES * OB_PAGE_SIZE);
	r->consumer = ept_track_consumer_add(&r->track);
	cr_assert(r->consumer >= 0);
	cr_assert(!ept_track_check_init(&r->check, &r->vm->mem, r->area, AREA_PAGES, 2, r->arena));
	pthread_mutex_init(&r->device_lock, NULL);
	enter_ring3(r, spin, 88172645463325252ULL);
}

static void *device(void *arg)
{
	const struct timespec nap = {.tv_nsec = 20000};
	unsigned int seed = 3;
	struct rig *r = arg;

	while (!r->stop) {
		uint64_t page = r->area + (uint64_t)rand_r(&seed) % AREA_PAGES;
		gpa_t at = gpa(gfn_gpa(gmem_page_gfn(&r->vm->mem, page)).v + 8);
		struct gmem_access acc;

		pthread_mutex_lock(&r->device_lock);
		cr_assert(!gmem_access_begin(&r->vm->mem, at, 8, true, &acc));
		__atomic_fetch_add((uint64_t *)acc.ptr, 1, __ATOMIC_SEQ_CST);
		gmem_access_end(&r->vm->mem, &acc);
		pthread_mutex_unlock(&r->device_lock);
		r->device_writes++;
		nanosleep(&nap, NULL);
	}
	return NULL;
}

static void rig_start(struct rig *r)
{
	struct ob_err e;

	cr_assert(!vm_start(r->vm, &e), "%s", e.msg);
	cr_assert(!pthread_create(&r->device, NULL, device, r));
}

static void rig_unmake(struct rig *r)
{
	r->stop = true;
	pthread_join(r->device, NULL);
	vm_stop(r->vm);
	cr_assert_eq(r->vm->end, VM_END_ASKED, "%s", r->vm->reason);
	ept_track_attach(&r->ept, NULL);
	ept_track_check_exit(&r->check);
	ept_track_exit(&r->track);
	ept_check(&r->ept);
	ept_exit(&r->ept);
	bed_close(&r->bed);
	cr_assert_eq(ob_arena_bytes(r->arena), 0);
	ob_arena_free(r->arena);
	pthread_mutex_destroy(&r->device_lock);
}

static void snapshot(struct rig *r)
{
	pthread_mutex_lock(&r->device_lock);
	ept_track_check_snapshot(&r->check);
	pthread_mutex_unlock(&r->device_lock);
}

static void pass(struct rig *r)
{
	uint64_t bitmap[WORDS];

	snapshot(r);
	cr_assert(!ept_track_collect(&r->track));
	cr_assert(ept_track_take(&r->track, r->consumer, r->area, AREA_PAGES, bitmap, NULL) >= 0);
	ept_track_check_compare(&r->check, bitmap);
}

static void judge(const struct rig *r)
{
	const struct ept_track_check_stats *st = &r->check.st;

	cr_log_info("%lu passes, %lu pages written, %lu reported, %lu unchanged, %lu missed\n",
		    st->passes, st->written, st->reported, st->unchanged, st->missed);
	cr_assert_eq(st->missed, 0,
		     "%lu of %lu written pages were missed, page %lu first in pass %lu", st->missed,
		     st->written, st->first_bad, st->bad_pass);
	cr_assert_lt(st->written, AREA_PAGES / 2 * st->passes, "all pages written in each pass");
	cr_assert_gt(r->device_writes, 0);
}

static void passes(uint64_t slot_bytes, int n, bool manual)
{
	struct ept_track_stats st;
	struct rig r;

	rig_make(&r, slot_bytes, 300);
	if (!manual) {
		struct kvm_enable_cap cap = {.cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2};

		cr_assert(!ioctl(r.vm->fd, KVM_ENABLE_CAP, &cap));
		r.vm->log.manual = 0;
	}
	rig_start(&r);
	cr_assert(!ept_track_on(&r.track, 0, r.vm->mem.pages));
	/* On a busy host the guest may hardly run for a while. */
	for (int i = 0; i < n || r.check.st.written < AREA_PAGES + WRITTEN; i++)
		pass(&r);
	ept_track_read_stats(&r.track, &st);
	cr_assert_eq(st.passes, r.check.st.passes);
	cr_assert_gt(st.by_log, 0);
	cr_assert_gt(st.by_devices, 0);
	cr_assert_eq(r.vm->log.collects, st.passes * r.vm->mem.nslots);
	cr_assert_eq(r.vm->log.clears > 0, manual);
	judge(&r);
	rig_unmake(&r);
}

Test(kvm_track, no_write_is_missed, .timeout = 120)
{
	NEED_KVM();
	passes(0, 20000, true);
}

Test(kvm_track, nor_in_small_slots, .timeout = 120)
{
	NEED_KVM();
	passes(2 * OB_MIB, 5000, true);
}

/* As on a KVM without manual protect: GET alone clears. */
Test(kvm_track, nor_without_manual_protect, .timeout = 120)
{
	NEED_KVM();
	passes(0, 5000, false);
}

/* Slots are switched off and on while the guest writes. */
Test(kvm_track, nor_while_slots_are_switched, .timeout = 120)
{
	unsigned int seed = 5;
	struct rig r;

	NEED_KVM();
	rig_make(&r, 2 * OB_MIB, 1500);
	rig_start(&r);
	for (int i = 0; i < 1000; i++) {
		uint64_t page = (uint64_t)rand_r(&seed) % r.vm->mem.pages;
		uint64_t n = 1 + (uint64_t)rand_r(&seed) % (r.vm->mem.pages - page);

		if (i % 8 == 0)
			cr_assert(!ept_track_on(&r.track, page, n));
		if (i % 16 == 8)
			cr_assert(!ept_track_off(&r.track, page, n));
		pass(&r);
	}
	cr_assert_gt(r.vm->log.switches, 10);
	cr_assert_eq(r.check.st.missed, 0);
	rig_unmake(&r);
}

/* Pages are replaced by frames of a pool under the guest; its writes break them off again. */
Test(kvm_track, nor_while_pages_are_shared_and_broken, .timeout = 120)
{
	uint8_t copy[OB_PAGE_SIZE];
	struct ept_stats st;
	unsigned int seed = 7;
	struct rig r;
	int pool;

	NEED_KVM();
	rig_make(&r, 0, 1500);
	pool = r.bed.host.ops->memfd(&r.bed.host, "pool", AREA_PAGES * OB_PAGE_SIZE);
	cr_assert(pool >= 0);
	rig_start(&r);
	cr_assert(!ept_track_on(&r.track, 0, r.vm->mem.pages));
	for (int i = 0; i < 1000; i++) {
		uint32_t frame = (uint32_t)rand_r(&seed) % AREA_PAGES;
		uint64_t page = r.area + frame;

		cr_assert(!ept_sync(&r.ept, page, 1, NULL));
		ept_freeze(&r.ept, page, 1);
		if (ept_state_of(&r.ept, page) == EPT_PRIVATE && ept_frozen(&r.ept, page)) {
			memcpy(copy, hva_ptr(gmem_page_hva(&r.vm->mem, page)), sizeof(copy));
			cr_assert(!r.bed.host.ops->file_write(&r.bed.host, pool, copy, sizeof(copy),
							      frame * OB_PAGE_SIZE));
			cr_assert(ept_share(&r.ept, page, 1, pool, frame) >= 0);
		}
		ept_thaw(&r.ept);
		pass(&r);
	}
	cr_assert(!ept_sync(&r.ept, 0, r.vm->mem.pages, NULL));
	ept_read_stats(&r.ept, &st);
	cr_assert_gt(st.shared, 100);
	cr_assert_gt(st.broken, 10, "no page was broken off");
	judge(&r);
	rig_unmake(&r);
	close(pool);
}

/*
 * The kernel's own page tables as a second witness, of the same guest in the same passes. It sees
 * what vCPUs and devices write alike. Its protecting makes KVM drop entries, so the log's tracking
 * is also checked with faults all the time.
 */
Test(kvm_track, page_tables_agree, .timeout = 120)
{
	struct ept_track_check by_scan;
	uint64_t scanned[WORDS], logged[WORDS];
	struct ept_scan scan;
	struct rig r;
	int err;

	NEED_KVM();
	rig_make(&r, 0, 300);
	err = ept_scan_begin(&scan, &r.bed.host, gmem_page_hva(&r.vm->mem, r.area), AREA_PAGES);
	if (err == -EOPNOTSUPP)
		cr_skip_test("the kernel has no PAGEMAP_SCAN (Linux 6.7)");
	cr_assert_eq(err, 0);
	cr_assert(!ept_track_check_init(&by_scan, &r.vm->mem, r.area, AREA_PAGES, 2, r.arena));
	rig_start(&r);
	cr_assert(!ept_track_on(&r.track, 0, r.vm->mem.pages));
	for (int i = 0; i < 500 || r.check.st.written < AREA_PAGES + WRITTEN; i++) {
		pthread_mutex_lock(&r.device_lock);
		ept_track_check_snapshot(&r.check);
		ept_track_check_snapshot(&by_scan);
		pthread_mutex_unlock(&r.device_lock);
		cr_assert(ept_scan_collect(&scan, scanned) >= 0);
		/* What a device is writing at this moment is in the tables, but not marked yet. */
		pthread_mutex_lock(&r.device_lock);
		cr_assert(!ept_track_collect(&r.track));
		pthread_mutex_unlock(&r.device_lock);
		cr_assert(ept_track_take(&r.track, r.consumer, r.area, AREA_PAGES, logged, NULL) >=
			  0);
		ept_track_check_compare(&by_scan, scanned);
		ept_track_check_other(&r.check, scanned);
		ept_track_check_compare(&r.check, logged);
	}
	cr_log_info("by page tables: %lu pages reported, %lu unchanged, %lu missed, %lu disputed\n",
		    by_scan.st.reported, by_scan.st.unchanged, by_scan.st.missed,
		    r.check.st.disputed);
	cr_assert_eq(by_scan.st.missed, 0);
	cr_assert_leq(r.check.st.disputed, r.vm->nvcpus,
		      "written by the page tables and not by the log, at once");
	judge(&r);
	ept_track_check_exit(&by_scan);
	ept_scan_end(&scan);
	rig_unmake(&r);
}

/* The log by itself: what it says when asked for what is not there. */
Test(kvm_track, bad_slots_are_refused)
{
	uint64_t bitmap[MEM / OB_PAGE_SIZE / 64];
	struct vm_config cfg = {.mem_bytes = 65 * OB_GIB, .slot_bytes = 2 * OB_MIB, .cmdline = ""};
	struct ob_err e = {""};
	struct vm *vm;
	struct rig r;

	NEED_KVM();
	rig_make(&r, 8 * OB_MIB, 1);
	cr_assert_eq(vm_log_collect(r.vm, 0, bitmap), -EINVAL, "it is off");
	cr_assert_eq(vm_log_collect(r.vm, 2, bitmap), -EINVAL);
	cr_assert_eq(vm_log_set(r.vm, 2, true), -EINVAL);
	cr_assert(!vm_log_set(r.vm, 1, true));
	cr_assert(r.vm->mem.slot[1].log && !r.vm->mem.slot[0].log);
	cr_assert(!vm_log_set(r.vm, 1, true), "twice is fine");
	cr_assert_eq(r.vm->log.switches, 1);
	cr_assert(!vm_log_collect(r.vm, 1, bitmap));
	cr_assert_eq(bitmap[0], vm_log_starts_full(r.vm) ? UINT64_MAX : 0);
	cr_assert(!vm_log_collect(r.vm, 1, bitmap));
	cr_assert_eq(bitmap[0], 0, "nobody writes");
	cr_assert(!vm_log_set(r.vm, 1, false));

	cfg.kernel = r.bed.kernel;
	cfg.kernel_len = r.bed.kernel_len;
	cr_assert_eq(vm_create(&vm, &r.bed.kvm, &r.bed.host, &cfg, &e), -E2BIG);
	cr_assert(strstr(e.msg, "larger slots") && !strchr(e.msg, '\n'), "%s", e.msg);
	cfg.slot_bytes = OB_MIB;
	cr_assert_eq(vm_create(&vm, &r.bed.kvm, &r.bed.host, &cfg, &e), -EINVAL);
	cr_assert(strstr(e.msg, "multiple of 2 MiB"), "%s", e.msg);
	rig_start(&r);
	rig_unmake(&r);
}
