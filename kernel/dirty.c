/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dirty.c: KVM's log of the pages that vCPUs write (Documentation/virt/kvm/api.rst, 4.8, 4.116 and
 * 7.14).
 *
 * KVM write-protects what it logs, and notes a page at the first write after that. Where it can, it
 * is asked to leave the protecting to us (manual protect): KVM_GET_DIRTY_LOG then only reads, and
 * KVM_CLEAR_DIRTY_LOG protects anew exactly the pages that we name. So a page that nobody writes
 * costs nothing in a pass; and with INITIALLY_SET, which begins with all pages noted and none
 * protected, huge mappings stay huge until the first collect of their slot.
 *
 * Nothing is lost between the two calls: a page that is first written after GET has looked is not
 * in our bitmap, so CLEAR does not touch it. One that is in our bitmap and written again before
 * CLEAR is not noted again, but then our caller looks at its content only after CLEAR, so after
 * that write.
 *
 * Where KVM cannot do this, GET alone reads, protects and forgets in one call.
 *
 * A slot is cleared in pieces. Each piece holds KVM's mmu_lock, for which faulting vCPUs wait, and
 * ends with a flush of the vCPUs' TLBs, which costs 10 us and more. So pieces are bounded but
 * large, each is narrowed to its first and last page that is set, and one without any is left out.
 * Stretches without a page inside a piece are left in: KVM passes over 64 such pages in a
 * nanosecond, a flush more would cost 10,000 of them.
 */
#include <errno.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>

#include "kernel/vm.h"

/* Pages cleared in one call: 256 MiB of guest, some 2 ms when every one of them was written. */
#define CLEAR_PIECE 65536

void vm_log_init(struct vm *vm)
{
	int can = ioctl(vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2);
	struct kvm_enable_cap cap = {.cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2};

	vm->log.manual = 0;
	if (can <= 0)
		return;
	cap.args[0] =
		(uint64_t)can & (KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET);
	if (!ioctl(vm->fd, KVM_ENABLE_CAP, &cap))
		vm->log.manual = cap.args[0];
}

bool vm_log_starts_full(const struct vm *vm)
{
	return vm->log.manual & KVM_DIRTY_LOG_INITIALLY_SET;
}

static uint64_t now(struct vm *vm)
{
	return vm->host->ops->now_ns(vm->host);
}

int vm_log_set(struct vm *vm, unsigned int slot, bool on)
{
	uint64_t start = now(vm);
	int r;

	if (slot >= vm->mem.nslots)
		return -EINVAL;
	if (vm->mem.slot[slot].log == on)
		return 0;
	r = vm_set_slot(vm, slot, on);
	if (r)
		return r;
	vm->mem.slot[slot].log = on;
	vm->log.switches++;
	vm->log.switch_ns += now(vm) - start;
	return 0;
}

/* Clear [page, page + n) of the slot, as far as they are set; @page is a multiple of 64. */
static int clear_piece(struct vm *vm, const struct gmem_slot *s, const uint64_t *bitmap,
		       uint64_t page, uint64_t n)
{
	uint64_t first = page / 64, end = (page + n + 63) / 64;
	struct kvm_clear_dirty_log log = {.slot = s->id};

	while (first < end && !bitmap[first])
		first++;
	if (first == end)
		return 0;
	while (!bitmap[end - 1])
		end--;
	log.first_page = first * 64;
	log.num_pages = (uint32_t)(OB_MIN(end * 64, s->pages) - first * 64);
	log.dirty_bitmap = (void *)(uintptr_t)(bitmap + first);
	vm->log.clears++;
	return ioctl(vm->fd, KVM_CLEAR_DIRTY_LOG, &log) ? -errno : 0;
}

int vm_log_collect(struct vm *vm, unsigned int slot, uint64_t *bitmap)
{
	struct kvm_dirty_log log = {.dirty_bitmap = bitmap};
	uint64_t start = now(vm), got, found = 0;
	const struct gmem_slot *s;
	int r = 0;

	if (slot >= vm->mem.nslots || !vm->mem.slot[slot].log)
		return -EINVAL;
	s = &vm->mem.slot[slot];
	log.slot = s->id;
	if (ioctl(vm->fd, KVM_GET_DIRTY_LOG, &log))
		return -errno;
	got = now(vm);
	vm->log.get_ns += got - start;
	for (uint64_t page = 0; vm->log.manual && page < s->pages && !r; page += CLEAR_PIECE)
		r = clear_piece(vm, s, bitmap, page, OB_MIN(s->pages - page, CLEAR_PIECE));
	if (vm->log.manual)
		vm->log.clear_ns += now(vm) - got;
	for (uint64_t w = 0; w < (s->pages + 63) / 64; w++)
		found += (uint64_t)__builtin_popcountll(bitmap[w]);
	vm->log.collects++;
	vm->log.pages += found;
	return r;
}
