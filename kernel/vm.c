/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vm.c: the life of a virtual machine: made, started, ended (by itself, by a fault, from outside),
 * unmade. Each step undoes itself on failure, in reverse.
 */
#include "kernel/vm.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "kernel/pc.h"
#include "kernel/vcpu.h"
#include "kernel/vm_devices.h"

/* Three pages that Intel CPUs need when they cannot run real mode natively; in the device hole. */
#define VM_TSS_GPA	    0xfffbd000UL
#define VM_IDENTITY_MAP_GPA 0xfffbc000ULL
#define VM_SCRATCH_GPA	    0xfffbb000ULL
#define VM_SLOTS_DEFAULT    32 /* of a KVM that does not say (KVM_CAP_NR_MEMSLOTS) */
#define VIRTIO_IRQ	    5  /* named on the command line for Linux; no interrupts are sent yet */

int vm_set_slot(struct vm *vm, unsigned int slot, bool log)
{
	const struct gmem_slot *s = &vm->mem.slot[slot];
	struct kvm_userspace_memory_region m = {
		.slot = s->id,
		.flags = log ? KVM_MEM_LOG_DIRTY_PAGES : 0,
		.guest_phys_addr = gfn_gpa(gmem_page_gfn(&vm->mem, s->first_page)).v,
		.memory_size = s->pages << OB_PAGE_SHIFT,
		.userspace_addr = gmem_page_hva(&vm->mem, s->first_page).v,
	};

	return ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &m) ? -errno : 0;
}

/*
 * With shadow paging KVM keeps what it has made of a guest's page tables, by the page that they lie in,
 * and learns of changes from the guest's own writes. Ours it does not see. To delete any slot makes it
 * drop all of that (kvm_arch_flush_shadow_memslot; Linux promises it: KVM_X86_QUIRK_SLOT_ZAP_ALL).
 * So a slot of one page is made for it, where no memory is.
 */
int vm_forget_translations(struct vm *vm)
{
	struct kvm_userspace_memory_region m = {
		.slot = vm->mem.nslots,
		.guest_phys_addr = VM_SCRATCH_GPA,
		.memory_size = OB_PAGE_SIZE,
	};
	struct ob_host *h = vm->host;
	hva_t page;
	int r = h->ops->ram_map(h, OB_PAGE_SIZE, "ob:scratch", &page);

	if (r)
		return r;
	m.userspace_addr = page.v;
	r = ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &m) ? -errno : 0;
	if (!r) {
		m.memory_size = 0;
		r = ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &m) ? -errno : 0;
	}
	h->ops->unmap(h, page, OB_PAGE_SIZE);
	return r;
}

static int vm_set_memslots(struct vm *vm, uint64_t slot_bytes, struct ob_err *e)
{
	int max = ioctl(vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_NR_MEMSLOTS);
	int r = gmem_divide(&vm->mem, slot_bytes);

	if (r == -EINVAL)
		return ob_fail(e, -r, "vm %u: memory slots of %llu bytes: need a multiple of 2 MiB",
			       vm->id, (unsigned long long)slot_bytes);
	max = OB_MAX(max, VM_SLOTS_DEFAULT);
	/* One stays free (vm_forget_translations). */
	if (r == -E2BIG || vm->mem.nslots >= (unsigned int)max)
		return ob_fail(e, E2BIG,
			       "vm %u: %llu bytes of memory in slots of %llu are more than the %d "
			       "slots of this KVM: take larger slots",
			       vm->id, (unsigned long long)(vm->mem.pages << OB_PAGE_SHIFT),
			       (unsigned long long)slot_bytes, max);
	OB_ASSERT(!r);
	for (unsigned int i = 0; i < vm->mem.nslots; i++) {
		r = vm_set_slot(vm, i, false);
		if (r)
			return ob_fail(e, -r, "vm %u: memory slot %u: %s", vm->id, i, strerror(-r));
	}
	return 0;
}

static int vm_create_kvm(struct vm *vm, struct ob_err *e)
{
	uint64_t ident = VM_IDENTITY_MAP_GPA;
	int tries = 0;

	/* KVM_CREATE_VM is interrupted by signals when it has much to do. */
	do
		vm->fd = ioctl(vm->kvm->fd, KVM_CREATE_VM, 0);
	while (vm->fd < 0 && errno == EINTR && tries++ < 100);
	if (vm->fd < 0)
		return ob_fail(e, errno, "vm %u: KVM_CREATE_VM: %s", vm->id, strerror(errno));
	/* Only Intel needs these; where they are not known, they are not needed. */
	ioctl(vm->fd, KVM_SET_IDENTITY_MAP_ADDR, &ident);
	ioctl(vm->fd, KVM_SET_TSS_ADDR, VM_TSS_GPA);
	return 0;
}

static void vm_describe(const struct vm *vm, struct boot_machine *out)
{
	*out = (struct boot_machine){.pc = vm->pc != NULL};
	if (vm->pc)
		pc_describe(vm, &out->acpi);
}

/* Our own guest is told of its devices by words; a PC has tables. */
static int vm_cmdline(struct vm *vm, const char *words, struct ob_err *e)
{
	char line[BOOT_CMDLINE_MAX], disk[64] = "";
	int n;

	if (vm->ndisks && !vm->pc)
		snprintf(disk, sizeof(disk), " virtio_mmio.device=4K@0x%llx:%d",
			 (unsigned long long)VIRTIO_GPA, VIRTIO_IRQ);
	if (vm->pc)
		n = snprintf(line, sizeof(line), "%s", words);
	else
		n = snprintf(line, sizeof(line), "%s agent=0x%llx%s", words,
			     (unsigned long long)AGENT_GPA, disk);
	if (n < 0 || (size_t)n >= sizeof(line))
		return ob_fail(e, E2BIG, "the guest's command line is over %d bytes",
			       BOOT_CMDLINE_MAX - 1);
	vm->boot.cmdline = strdup(line);
	OB_ASSERT(vm->boot.cmdline);
	return 0;
}

int vm_boot(struct vm *vm, struct ob_err *e)
{
	const struct vm_boot *b = &vm->boot;
	struct boot_machine machine;
	struct boot_entry entry;
	int r;

	vm_describe(vm, &machine);
	r = boot_load(&vm->mem, &b->image, b->kernel, b->kernel_len, b->initrd, b->initrd_len,
		      b->cmdline, &machine, &entry, e);
	return r ? r : vcpu_set_boot(&vm->vcpu[0], &entry, e);
}

static int vm_load(struct vm *vm, const struct vm_config *cfg, struct ob_err *e)
{
	int r = boot_parse(cfg->kernel, cfg->kernel_len, &vm->boot.image, e);

	if (r)
		return r;
	vm->boot.kernel = cfg->kernel;
	vm->boot.kernel_len = cfg->kernel_len;
	vm->boot.initrd = cfg->initrd;
	vm->boot.initrd_len = cfg->initrd_len;
	r = vm_cmdline(vm, cfg->cmdline, e);
	return r ? r : vm_boot(vm, e);
}

static int vm_add_vcpus(struct vm *vm, unsigned int n, struct ob_err *e)
{
	int r = 0;

	vm->vcpu = calloc(n, sizeof(*vm->vcpu));
	OB_ASSERT(vm->vcpu);
	/* Counted when it is there; what it says of the others it is told. */
	for (unsigned int i = 0; i < n && !r; i++) {
		r = vcpu_create(&vm->vcpu[i], vm, i, n, e);
		vm->nvcpus += !r;
	}
	return r;
}

static void vm_drop_vcpus(struct vm *vm)
{
	for (unsigned int i = 0; i < vm->nvcpus; i++)
		vcpu_destroy(&vm->vcpu[i]);
	free(vm->vcpu);
}

/* The virtual hardware, in the order in which its parts need each other. */
static int vm_build(struct vm *vm, const struct vm_config *cfg, struct ob_err *e)
{
	int r = 0;

	if (cfg->pc)
		r = pc_create(vm, cfg, e);
	else if (cfg->vcpus > 1)
		r = ob_fail(e, EINVAL, "%u vCPUs: a guest of this kind has one", cfg->vcpus);

	r = r ? r : vm_add_vcpus(vm, OB_MAX(cfg->vcpus, 1u), e);
	r = r ? r : vm_add_devices(vm, cfg, e);
	r = r ? r : vm_load(vm, cfg, e);
	return r;
}

static void vm_unbuild(struct vm *vm)
{
	vm_drop_devices(vm);
	vm_drop_vcpus(vm);
	if (vm->pc)
		pc_destroy(vm);
	free(vm->boot.cmdline);
}

int vm_create(struct vm **out, struct kvm *kvm, struct ob_host *host, const struct vm_config *cfg,
	      struct ob_err *e)
{
	struct vm *vm = calloc(1, sizeof(*vm));
	char name[32];
	int r;

	OB_ASSERT(vm);
	vm->kvm = kvm;
	vm->host = host;
	vm->id = cfg->id;
	vm->fd = -1;
	ob_mutex_init(&vm->end_lock, OB_RANK_VM_END);

	snprintf(name, sizeof(name), "ob:vm%u:ram", cfg->id);
	r = gmem_init(&vm->mem, host, cfg->mem_bytes, name);
	if (r) {
		ob_fail(e, -r, "vm %u: cannot map %llu bytes of RAM: %s", cfg->id,
			(unsigned long long)cfg->mem_bytes, strerror(-r));
		goto free_vm;
	}
	r = cfg->huge ? gmem_huge(&vm->mem) : 0;
	if (r) {
		ob_fail(e, -r, "vm %u: huge pages for its RAM: %s", cfg->id, strerror(-r));
		goto free_mem;
	}
	r = vm_create_kvm(vm, e);
	if (r)
		goto free_mem;
	vm_log_init(vm);
	r = vm_set_memslots(vm, cfg->slot_bytes, e);
	if (r)
		goto close_vm;
	serial_init(&vm->serial, cfg->console_fd);
	r = vm_build(vm, cfg, e);
	if (r)
		goto unbuild;
	*out = vm;
	return 0;

unbuild:
	vm_unbuild(vm);
close_vm:
	close(vm->fd);
free_mem:
	gmem_exit(&vm->mem);
free_vm:
	ob_mutex_destroy(&vm->end_lock);
	free(vm);
	return r;
}

int vm_start(struct vm *vm, struct ob_err *e)
{
	int r = 0;

	OB_ASSERT(vm->state == VM_CREATED);
	/* What vCPUs and chips are now is what a reset makes them again. */
	if (vm->pc)
		r = pc_keep_state(vm, e);
	if (r)
		return r;
	vm->started_ns = vm->host->ops->now_ns(vm->host);
	vm->state = VM_RUNNING;
	vm->nrunning = vm->nvcpus;
	/* Parked until all are there: one that runs could not be kicked while vcpu_start is still
	 * noting down its thread, and whoever wants it out (another vCPU that resets) would wait
	 * for ever. */
	vm_park(vm);
	for (unsigned int i = 0; i < vm->nvcpus && !r; i++)
		r = vcpu_start(&vm->vcpu[i], e);
	vm_unpark(vm);
	if (r)
		vm_stop(vm);
	return r;
}

/* Note how it ended (the first one counts) and make the vCPUs end. */
static void vm_end(struct vm *vm, enum vm_end end, int code, const char *reason)
{
	ob_lock(&vm->end_lock);
	if (vm->end == VM_END_NONE) {
		vm->end = end;
		vm->exit_code = code;
		snprintf(vm->reason, sizeof(vm->reason), "%s", reason);
	}
	ob_unlock(&vm->end_lock);
	atomic_store(&vm->stop, true);
	for (unsigned int i = 0; i < vm->nvcpus; i++)
		vcpu_kick(&vm->vcpu[i]);
	vcpu_look_again(vm);
	vm_wake(vm);
}

void vm_fail(struct vm *vm, const char *fmt, ...)
{
	char reason[sizeof(vm->reason)];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(reason, sizeof(reason), fmt, ap);
	va_end(ap);
	vm_end(vm, VM_END_FAILED, 0, reason);
}

void vm_exit(struct vm *vm, int code)
{
	char reason[sizeof(vm->reason)], line[120];

	/* What it said last says more than a number. */
	serial_last_line(&vm->serial, line, sizeof(line));
	snprintf(reason, sizeof(reason), "the guest ended with code %d%s%s", code,
		 code && *line ? ": " : "", code ? line : "");
	vm_end(vm, VM_END_EXIT, code, reason);
}

void vm_ask_stop(struct vm *vm)
{
	vm_end(vm, VM_END_ASKED, 0, "stopped");
}

void vm_stop(struct vm *vm)
{
	vm_ask_stop(vm);
	for (unsigned int i = 0; i < vm->nvcpus; i++)
		vcpu_join(&vm->vcpu[i]);
	vm->state = VM_STOPPED;
}

void vm_destroy(struct vm *vm)
{
	if (!vm)
		return;
	vm_stop(vm);
	vm_unbuild(vm);
	close(vm->fd);
	gmem_exit(&vm->mem);
	ob_mutex_destroy(&vm->end_lock);
	free(vm);
}

uint64_t vm_cpu_ns(struct vm *vm)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < vm->nvcpus; i++)
		sum += vcpu_cpu_ns(&vm->vcpu[i]);
	return sum;
}

int vm_cpu(struct vm *vm)
{
	const uint32_t *at;
	int cpu = -1;

	ob_lock(&vm->end_lock);
	at = vm->nvcpus ? atomic_load(&vm->vcpu[0].cpu) : NULL;
	if (at)
		cpu = (int)__atomic_load_n(at, __ATOMIC_RELAXED);
	ob_unlock(&vm->end_lock);
	return cpu;
}
