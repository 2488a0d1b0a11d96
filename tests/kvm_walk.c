/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvm_walk.c: the guest page walk beside KVM's own (KVM_TRANSLATE), on random tables in the RAM of
 * a virtual machine, and on those of a guest that runs.
 *
 * What KVM answers is compared in whether there is a page, and where. It does not say why there is
 * none, nor the rights (its writeable and usermode fields are constants in most kernels): for those
 * there is the list that the tables were made from, which is asked too. KVM sets accessed bits as
 * it translates, so entries' values are not compared. Two things KVM does in its own way: it goes
 * by the low bits of an address that is not canonical, which are only counted here; and what
 * walk_tables.h names as_kvm.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

#include "kernel/vcpu.h"
#include "tests/bed.h"
#include "tests/walk_tables.h"

#define MEM	  (GMEM_HOLE_START + 64 * OB_MIB) /* so that tables lie above 4 GiB too */
#define ADDRESSES 100000			  /* compared, of each mode that this KVM has */
#define TABLES	  20				  /* sets of them */

struct rig {
	struct bed bed;
	struct vm *vm; /* the bed's */
	uint8_t *used; /* a byte a page of RAM: is a table */
	struct wt *t;
};

static void rig_make(struct rig *r, uint64_t mem, const char *cmdline)
{
	memset(r, 0, sizeof(*r));
	bed_microguest(&r->bed,
		       (struct vm_config){.mem_bytes = mem, .cmdline = cmdline, .console_fd = -1});
	r->vm = r->bed.vm;
	r->used = calloc(1, r->vm->mem.pages);
	r->t = calloc(1, sizeof(*r->t));
	cr_assert(r->used && r->t);
}

static void rig_unmake(struct rig *r)
{
	bed_close(&r->bed);
	free(r->used);
	free(r->t);
}

/* --- tables in guest RAM -------------------------------------------------------------------- */

static uint64_t ram_page(void *arg, uint64_t limit)
{
	struct rig *r = arg;
	uint64_t page, at;

	do {
		page = wt_below(r->t, r->vm->mem.pages);
		at = gfn_gpa(gmem_page_gfn(&r->vm->mem, page)).v;
	} while (r->used[page] || at >= limit);
	r->used[page] = 1;
	memset(hva_ptr(gmem_page_hva(&r->vm->mem, page)), 0, OB_PAGE_SIZE);
	return at;
}

/* In the devices' gigabyte, or above all RAM. */
static uint64_t ram_hole(void *arg, uint64_t limit)
{
	struct rig *r = arg;
	uint64_t at;

	do
		at = wt_below(r->t, limit) & ~OB_PAGE_MASK;
	while (gmem_gfn_page(&r->vm->mem, gpa_gfn(gpa(at))) != UINT64_MAX);
	return at;
}

static void ram_put(void *arg, uint64_t at, unsigned int bytes, uint64_t value)
{
	struct rig *r = arg;

	cr_assert(!gmem_write(&r->vm->mem, gpa(at), &value, bytes));
}

static int walk(struct rig *r, const struct vcpu_paging *regs, uint64_t va, struct ept_walk *w)
{
	const struct ept_walk_mem reader = {.read = ept_walk_read_gmem, .arg = &r->vm->mem};

	return ept_walk(regs, &reader, (gva_t){va}, w);
}

static struct kvm_translation kvm_answer(struct rig *r, uint64_t va)
{
	struct kvm_translation tr = {.linear_address = va};

	cr_assert_eq(ioctl(r->vm->vcpu[0].fd, KVM_TRANSLATE, &tr), 0, "KVM_TRANSLATE: %s",
		     strerror(errno));
	return tr;
}

/* Put the registers into the vCPU. False, and @why, when this KVM does not take them. */
static bool load_regs(struct rig *r, const struct vcpu_paging *p, char *why, size_t n)
{
	int fd = r->vm->vcpu[0].fd;
	struct kvm_sregs s;

	cr_assert_eq(ioctl(fd, KVM_GET_SREGS, &s), 0);
	s.cr0 = p->cr0;
	s.cr3 = p->cr3;
	s.cr4 = p->cr4;
	s.efer = p->efer;
	s.cs.l = !!(p->efer & 0x400);
	s.cs.db = !s.cs.l;
	if (ioctl(fd, KVM_SET_SREGS, &s)) {
		snprintf(why, n, "KVM_SET_SREGS: %s", strerror(errno));
		return false;
	}
	cr_assert_eq(ioctl(fd, KVM_GET_SREGS, &s), 0);
	if (s.cr0 != p->cr0 || s.cr4 != p->cr4 || s.efer != p->efer) {
		snprintf(why, n, "of cr0 0x%lx it keeps 0x%llx, of cr4 0x%lx 0x%llx", p->cr0, s.cr0,
			 p->cr4, s.cr4);
		return false;
	}
	return true;
}

/* --- comparing ------------------------------------------------------------------------------ */

struct tally {
	uint64_t stop[EPT_WALK_NSTOPS]; /* walks by their end */
	uint64_t size[4];		/* pages found: 4 KB, 2 MB, 4 MB, 1 GB */
	uint64_t low_bits;		/* not canonical, and KVM has a page for it */
};

static void count_size(struct tally *n, uint64_t size)
{
	static const uint64_t sizes[] = {OB_PAGE_SIZE, 2 * OB_MIB, 4 * OB_MIB, OB_GIB};

	for (size_t i = 0; i < OB_ARRAY_SIZE(sizes); i++)
		n->size[i] += size == sizes[i];
}

/* True when KVM had a say. */
static bool compare(struct rig *r, const struct vcpu_paging *regs, uint64_t va, struct tally *n)
{
	struct kvm_translation kvm;
	struct wt_answer a;
	struct ept_walk w;
	int rc = walk(r, regs, va, &w);

	cr_assert(rc == 0 || rc == -EFAULT, "%d", rc);
	wt_expect(r->t, va, &a);
	cr_assert(w.stop == a.stop && w.level == a.level,
		  "seed %lu, 0x%lx: \"%s\" at level %u, but the list has \"%s\" at level %u",
		  r->t->seed, va, ept_walk_stop_name(w.stop), w.level, ept_walk_stop_name(a.stop),
		  a.level);
	n->stop[w.stop]++;
	kvm = kvm_answer(r, va);
	if (w.stop == EPT_WALK_NONCANONICAL) {
		n->low_bits += kvm.valid;
		return false;
	}
	cr_assert_eq(!!kvm.valid, rc == 0, "seed %lu, 0x%lx: KVM says %s, the walk %s at level %u",
		     r->t->seed, va, kvm.valid ? "valid" : "not valid", ept_walk_stop_name(w.stop),
		     w.level);
	if (rc)
		return true;
	cr_assert_eq(kvm.physical_address, w.gpa.v, "seed %lu, 0x%lx: KVM says 0x%llx, not 0x%lx",
		     r->t->seed, va, kvm.physical_address, w.gpa.v);
	cr_assert(w.writable == a.w && w.user == a.u && w.nx == a.nx && w.page_size == a.page_size,
		  "seed %lu, 0x%lx: rights or size", r->t->seed, va);
	count_size(n, w.page_size);
	return true;
}

/* One set of tables, as random as this KVM lets registers be. False: it does not know the mode. */
static bool one_set(struct rig *r, enum ept_walk_mode mode, uint64_t seed, struct tally *n,
		    char *why, size_t len)
{
	struct vcpu_paging told;
	struct wt *t = r->t;
	struct ob_err e;

	t->seed = t->rng = seed;
	t->as_kvm = true;
	t->ram = (struct wt_ram){.page = ram_page, .hole = ram_hole, .put = ram_put, .arg = r};
	wt_random_regs(t, mode);
	/* What the guest's CPUID says of physical addresses is not ours to choose. */
	cr_assert(!vcpu_read_paging(r->vm, 0, &told, &e), "%s", e.msg);
	t->regs.maxphyaddr = told.maxphyaddr;
	t->regs.has_1g = told.has_1g;
	memset(r->used, 0, r->vm->mem.pages);
	wt_begin(t);
	wt_fill(t, 150, 40);
	if (!load_regs(r, &t->regs, why, len))
		return false;
	cr_assert(!vcpu_read_paging(r->vm, 0, &told, &e), "%s", e.msg);
	cr_assert(told.cr0 == t->regs.cr0 && told.cr4 == t->regs.cr4 && told.cr3 == t->regs.cr3 &&
		  told.efer == t->regs.efer);
	for (int i = 0; i < ADDRESSES / TABLES;)
		i += compare(r, &told, wt_some_gva(t), n);
	return true;
}

static void agrees(enum ept_walk_mode mode)
{
	struct tally n = {{0}, {0}, 0};
	char why[200];
	struct rig r;

	NEED_KVM();
	rig_make(&r, MEM, "workload=idle");
	for (uint64_t seed = 1; seed <= TABLES; seed++)
		if (!one_set(&r, mode, seed, &n, why, sizeof(why))) {
			rig_unmake(&r);
			cr_assert_eq(seed, 1, "%s", why);
			cr_skip_test("this KVM has no %s paging: %s", ept_walk_mode_name(mode),
				     why);
		}
	rig_unmake(&r);
	printf("%s: %lu mapped (%lu 4K, %lu 2M, %lu 4M, %lu 1G), not mapped: %lu not present, "
	       "%lu reserved bit, %lu outside RAM; %lu not canonical (KVM: %lu by low bits)\n",
	       ept_walk_mode_name(mode), n.stop[EPT_WALK_DONE], n.size[0], n.size[1], n.size[2],
	       n.size[3], n.stop[EPT_WALK_NOT_PRESENT], n.stop[EPT_WALK_RESERVED],
	       n.stop[EPT_WALK_OUTSIDE], n.stop[EPT_WALK_NONCANONICAL], n.low_bits);
	fflush(stdout);
	for (unsigned int s = EPT_WALK_DONE; s < EPT_WALK_NSTOPS; s++)
		cr_assert_gt(n.stop[s], 20, "hardly any walk ended as \"%s\"",
			     ept_walk_stop_name(s));
	cr_assert_gt(n.stop[EPT_WALK_DONE], ADDRESSES / 10);
}

Test(vm_walk, agrees_with_kvm_4level, .timeout = 300)
{
	agrees(EPT_WALK_4LEVEL);
}

Test(vm_walk, agrees_with_kvm_5level, .timeout = 300)
{
	agrees(EPT_WALK_5LEVEL);
}

Test(vm_walk, agrees_with_kvm_pae, .timeout = 300)
{
	agrees(EPT_WALK_PAE);
}

Test(vm_walk, agrees_with_kvm_32bit, .timeout = 300)
{
	agrees(EPT_WALK_32BIT);
}

/* --- a guest that runs ---------------------------------------------------------------------- */

static bool in_the_kernels_file(const struct rig *r, uint64_t at, const void *bytes, size_t n)
{
	struct elf_image img;
	struct ob_err e;

	cr_assert(!elf_parse(r->bed.kernel, r->bed.kernel_len, &img, &e), "%s", e.msg);
	for (unsigned int i = 0; i < img.nseg; i++) {
		const struct elf_segment *s = &img.seg[i];

		if (at >= s->paddr && at - s->paddr + n <= s->file_size)
			return !memcmp((const uint8_t *)r->bed.kernel + s->file_off +
					       (at - s->paddr),
				       bytes, n);
	}
	return false;
}

/* Where it executes is what its file has there. */
Test(vm_walk, of_a_guest_that_runs, .timeout = 60)
{
	struct agent_report rep = {.phase = 0};
	struct timespec ms = {.tv_nsec = 1000000};
	struct vcpu_paging regs;
	struct kvm_regs gp;
	uint8_t code[8];
	struct ept_walk w;
	struct ob_err e;
	struct rig r;

	NEED_KVM();
	rig_make(&r, 16 * OB_MIB, "workload=kv seed=1 common=1 guest=0");
	bed_start(&r.bed);
	while (rep.phase < AGENT_WARM) {
		cr_assert_eq(atomic_load(&r.vm->state), VM_RUNNING, "%s", r.vm->reason);
		nanosleep(&ms, NULL);
		agent_read_report(&r.vm->agent, &rep);
	}
	cr_assert_eq(vcpu_read_paging(r.vm, 0, &regs, &e), -EBUSY, "it runs");
	cr_assert_eq(vcpu_read_paging(r.vm, 1, &regs, &e), -EINVAL, "it has one vCPU");

	for (int i = 0; i < 20; i++) {
		vm_park(r.vm);
		cr_assert(!vcpu_read_paging(r.vm, 0, &regs, &e), "%s", e.msg);
		cr_assert(!ioctl(r.vm->vcpu[0].fd, KVM_GET_REGS, &gp));
		cr_assert_eq(walk(&r, &regs, gp.rip, &w), 0, "rip 0x%llx: %s at level %u", gp.rip,
			     ept_walk_stop_name(w.stop), w.level);
		cr_assert_eq(w.mode, EPT_WALK_4LEVEL);
		cr_assert(w.user, "it runs in ring 3");
		cr_assert(!w.nx, "and executes this");
		cr_assert_eq(kvm_answer(&r, gp.rip).physical_address, w.gpa.v);
		cr_assert(!gmem_read(&r.vm->mem, w.gpa, code, sizeof(code)));
		cr_assert(in_the_kernels_file(&r, w.gpa.v, code, sizeof(code)),
			  "rip 0x%llx is not at 0x%lx", gp.rip, w.gpa.v);
		cr_assert_eq(walk(&r, &regs, gp.rsp - 8, &w), 0);
		cr_assert(w.writable, "its stack");
		vm_unpark(r.vm);
		nanosleep(&ms, NULL);
	}
	vm_stop(r.vm);
	cr_assert_eq(r.vm->end, VM_END_ASKED, "%s", r.vm->reason);
	rig_unmake(&r);
}
