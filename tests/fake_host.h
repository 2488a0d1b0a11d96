/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fake_host.h: a host that is only memory: a struct ob_host for tests that may make no system call.
 *
 * What it models, page by page, is what the mechanisms above depend on:
 *  - guest RAM is real memory (reads through an hva work), but what the "kernel" holds for each
 *    page is kept beside it: untouched, the zero page, private with a host frame of its own, a
 *    frame of a pool file (present once somebody read it), broken off from that frame, or swapped
 *    out;
 *  - pool files are memory buffers whose pages get a host frame when they are first written;
 *  - mappings are counted as the kernel counts them (adjacent pages of one file with consecutive
 *    offsets are one), and running out of them fails with -ENOMEM;
 *  - what the kernel does to pages by itself happens when a test says so: swapping, migration, the
 *    zero page that KSM puts in the place of one of zeroes, a pin;
 *  - userfaultfd: pages are registered, a new mapping forgets it, and whoever touches a registered
 *    page that is missing (or writes to a protected one) waits, with a fault to be answered;
 *  - the clocks stand still until a test moves them.
 *
 * Nothing here traps a store, so guest accesses go through fake_host_write and fake_host_read,
 * which do what a page fault would, or through fake_host_try_write and fake_host_try_read where
 * that may be to wait. A store through a plain pointer (a device model's memcpy) is noticed late, by
 * its content: when the host is next asked about the page, an untouched page that is not zero has
 * been touched, and an unbroken page that differs from its frame has been broken. A store of the
 * same bytes is not noticed, unlike on a real host.
 *
 * Where a real kernel is lenient in a way that hides bugs, this host is strict: asking about memory
 * that is not mapped is -EFAULT, mapping beyond a file's end is -EINVAL; so is a move from memory
 * that is not registered, an answer or a protection over a frame, a discard of what was broken off a
 * frame, or one of ranges out of order. Where a real kernel would let the caller wait for himself (a
 * store to, or a copy from, a page whose faults he answers), the test is aborted; a load finds
 * neither the content nor zeroes.
 */
#ifndef OVERBOOK_TESTS_FAKE_HOST_H
#define OVERBOOK_TESTS_FAKE_HOST_H

#include "kernel/host.h"

enum fake_op {
	FAKE_RAM_MAP,
	FAKE_UNMAP,
	FAKE_MAP_FRAMES,
	FAKE_MAP_EMPTY,
	FAKE_DISCARD,
	FAKE_MERGEABLE,
	FAKE_PAGES,
	FAKE_MEMFD,
	FAKE_MAP_SHARED,
	FAKE_FILE_READ,
	FAKE_FILE_WRITE,
	FAKE_PUNCH,
	FAKE_FILE_BLOCKS,
	FAKE_VMA_COUNT,
	FAKE_DISCARD_MANY,
	FAKE_UFFD_OPEN,
	FAKE_UFFD_REGISTER,
	FAKE_UFFD_UNREGISTER,
	FAKE_UFFD_MOVE,
	FAKE_UFFD_COPY,
	FAKE_UFFD_ZERO,
	FAKE_UFFD_PROTECT,
	FAKE_UFFD_WAKE,
	FAKE_UFFD_WAIT,
	FAKE_HUGE,
	FAKE_COLLAPSE,
	FAKE_SPLIT,
	FAKE_HUGE_UNITS,
	FAKE_MAP_VIEW,
	FAKE_POPULATE,
	FAKE_NOPS,
};

/* For fake_host_fail: every call from now on. */
#define FAKE_EVERY 0

/* Make and free a host. Freeing it also frees whatever was mapped and not unmapped. */
struct ob_host *fake_host_new(void);
void fake_host_free(struct ob_host *h);

/*
 * RAM without memory behind it: ram_map gives addresses that nobody may touch. For tests of layout
 * with more RAM than a test should ask for. Before the first ram_map.
 */
void fake_host_no_memory(struct ob_host *h);

/* Let the @nth call of @op from now (1 = the next one, FAKE_EVERY = all) fail with @err (positive).
 * @err 0 disarms. One setting per operation. */
void fake_host_fail(struct ob_host *h, enum fake_op op, uint64_t nth, int err);
/* The same for map_frames and map_empty, but as some kernels do it: when the call fails the old
 * mapping is gone. Its content is lost, and nothing is mapped there until the next map call. */
void fake_host_fail_with_hole(struct ob_host *h, enum fake_op op, uint64_t nth, int err);
/* The same for discard_many and all of userfaultfd's that take a range, failing when @pages pages of
 * it are done (of discard_many: ranges). A move that has begun does not fail: it returns less. */
void fake_host_fail_partly(struct ob_host *h, enum fake_op op, uint64_t nth, int err,
			   uint64_t pages);
/* How often @op was called, failures included. */
uint64_t fake_host_calls(struct ob_host *h, enum fake_op op);
/* Called before and after each operation, without any lock held: the place for "the guest writes
 * just now". NULL: none. */
typedef void (*fake_hook_fn)(void *arg, struct ob_host *h, enum fake_op op, bool after);
void fake_host_hook(struct ob_host *h, fake_hook_fn fn, void *arg);

/* The guest writes or reads memory, as a vCPU would: faults pages in, breaks them off their frame.
 * Any alignment and length inside one mapping; anything else aborts the test, and so does an access
 * that would have to wait. */
void fake_host_write(struct ob_host *h, hva_t at, const void *buf, uint64_t len);
void fake_host_read(struct ob_host *h, hva_t at, void *buf, uint64_t len);
/*
 * The same, but false when it waits for a page: nothing was done, and its fault is there to be
 * answered. Whoever waits tries again when he has been woken (fake_host_waiting); before that a try
 * is not another fault.
 */
bool fake_host_try_write(struct ob_host *h, hva_t at, const void *buf, uint64_t len);
bool fake_host_try_read(struct ob_host *h, hva_t at, void *buf, uint64_t len);
/* What an uffd_wait would return: faults not told of yet, at most @max; those whose waiters have been
 * woken meanwhile are none any more. */
unsigned int fake_host_faults(struct ob_host *h, struct ob_fault *out, unsigned int max);
/* How many accesses wait to be woken, on pages whose faults were told of or not. */
unsigned int fake_host_waiting(struct ob_host *h);
/* What uffd_open says of this kernel (default: all of it). That it is not allowed at all is
 * fake_host_fail(h, FAKE_UFFD_OPEN, FAKE_EVERY, EPERM). */
void fake_host_uffd_caps(struct ob_host *h, struct ob_uffd_caps caps);
/* Somebody in the kernel holds these pages (or no longer): they cannot be moved. */
void fake_host_pin(struct ob_host *h, hva_t at, uint64_t n, bool on);
/* Is it mapped from a file, broken off or not? */
bool fake_host_file_mapped(struct ob_host *h, hva_t at);
/* Do faults on this page go to a userfaultfd? */
bool fake_host_registered(struct ob_host *h, hva_t at);
/* The kernel loses the page at @at, as for broken hardware. */
void fake_host_lose(struct ob_host *h, hva_t at);
/* The kernel swaps [at, at + n pages) out: private pages stop being present, others are left. */
void fake_host_swap_out(struct ob_host *h, hva_t at, uint64_t n);
/*
 * The kernel migrates those of [at, at + n pages) that hold memory, private or of a file: from
 * begin to end they show as swapped and not as present, and have no frame number; content and
 * mapping are as before. An access to such a page waits for the end, so here it is one.
 */
void fake_host_migrate_begin(struct ob_host *h, hva_t at, uint64_t n);
void fake_host_migrate_end(struct ob_host *h, hva_t at, uint64_t n);
/* The kernel's KSM puts the zero page in the place of the private page at @at, which must
 * be all zero. */
void fake_host_ksm_zero(struct ob_host *h, hva_t at);

/* The guest's first touch of @n units that may be huge, and of which nothing is there yet: huge
 * pages. (Any other touch is one of small pages.) */
void fake_huge_touch(struct ob_host *h, hva_t at, uint64_t n);
/* May there be huge pages? */
bool fake_huge_may(struct ob_host *h, hva_t at);
/* Pages that were given back and are held all the same, as parts of huge pages not split. */
uint64_t fake_huge_stuck(struct ob_host *h);

/* Time: both clocks start at 1 s. */
void fake_host_advance(struct ob_host *h, uint64_t ns);
void fake_host_advance_cpu(struct ob_host *h, uint64_t ns);
/* Somebody else gets the CPU of the thread, once. */
void fake_host_preempt(struct ob_host *h);
uint64_t fake_host_cpu(struct ob_host *h);

/* Limit of mappings (default 65530) and how many there are besides guest RAM (default 100). */
void fake_host_vma_limit(struct ob_host *h, uint64_t limit, uint64_t others);
/* May this process read host frame numbers (default yes)? */
void fake_host_knows_pfn(struct ob_host *h, bool yes);

/* What a test wants to know of the model. */
uint64_t fake_host_private_pages(struct ob_host *h);	  /* anonymous memory held, in pages */
uint64_t fake_host_file_pages(struct ob_host *h, int fd); /* blocks that a file holds, in pages */
uint64_t fake_host_mapped_bytes(struct ob_host *h);	  /* RAM mapped and not unmapped */
bool fake_host_is_mergeable(struct ob_host *h, hva_t at);
/* Is the page mapped from (@fd, @off), unbroken? -1 and 0 when it is not. */
bool fake_host_frame_of(struct ob_host *h, hva_t at, int *fd, uint64_t *off);

#endif
