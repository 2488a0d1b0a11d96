/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mg.h: the microguest's own header: the machine below the workloads (workloads/common/guest.h). One
 * thread of control in ring 3, memory mapped one to one; nothing is global but the processor's tables.
 */
#ifndef OVERBOOK_MICROGUEST_MG_H
#define OVERBOOK_MICROGUEST_MG_H

#include "workloads/common/guest.h"

#define GIB (1ULL << 30)

/* --- agent.c: the agent device
 * -------------------------------------------------------------------- */

struct agent_dev {
	uint64_t base; /* 0: no such device */
};

void agent_init(struct guest *g);
void agent_write(const struct agent_dev *a, unsigned int reg, uint64_t v);

/* --- start.S, trap.c
 * -------------------------------------------------------------------------------- */

struct trap_frame {
	uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
	uint64_t vector, error, rip, cs, rflags, rsp, ss;
};

void guest_halt(void) __attribute__((noreturn));
void trap(struct trap_frame *f);
/* Where exceptions are to be reported. */
void trap_set_agent(uint64_t base);

/* --- boot.c: what the hypervisor tells us
 * ---------------------------------------------------------- */

#define RAM_RANGES 8

struct ram_range {
	uint64_t addr, pages;
	uint64_t first; /* index of its first page among all usable pages */
};

void boot_parse(struct guest *g, uint64_t start_info);

/* --- virtio.c, blk.c: the disk
 * ---------------------------------------------------------------------- */

#define BLK_SLOTS   4  /* requests in flight */
#define BLK_SEGS    32 /* pages in one request */
#define BLK_TIMEOUT (30 * SECOND)

struct virtq_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};

struct blk_slot {
	bool busy, done;
	uint8_t error; /* status byte when done */
};

struct blk {
	uint64_t base; /* of the registers */
	uint64_t disk_pages;
	uint16_t size;		       /* of the queue */
	unsigned int nslots, per_slot; /* descriptors of a slot */
	struct virtq_desc *desc;
	uint16_t *avail, *used; /* rings, as the standard lays them out */
	uint8_t *head;		/* per slot: 16 bytes of header, a status byte */
	uint16_t last_used;
	struct blk_slot slot[BLK_SLOTS];
};

uint32_t virtio_read(const struct blk *b, unsigned int reg);
void virtio_write(const struct blk *b, unsigned int reg, uint32_t v);
void virtio_write64(const struct blk *b, unsigned int reg_low, uint64_t v);
void virtio_notify(const struct blk *b);
/* Add the chain that starts at @head to the available ring. */
void virtio_post(struct blk *b, uint16_t head);

/* Set up the disk. Without one (no address given) base stays 0. */
void blk_init(struct guest *g);
/*
 * Start to read disk pages [from, from + n) into @page[0..n), n at most blk_max. Contiguous memory
 * becomes one segment unless @scatter, then each page is a segment. Waits for a free slot.
 */
unsigned int blk_max(const struct blk *b);
unsigned int blk_submit(struct guest *g, uint64_t from, uint64_t *const *page, unsigned int n,
			bool scatter);
/* Wait until the request in @slot is done, and free the slot. An error ends the guest. */
void blk_wait(struct guest *g, unsigned int slot);

/* --- work_hostile.c
 * ------------------------------------------------------------------------------- */

extern const struct workload work_hostile[];
extern const unsigned int work_nhostile;

struct platform {
	uint64_t agent_at, virtio_at; /* addresses that the command line gave; 0: none */
	struct agent_dev agent;
	struct ram_range range[RAM_RANGES];
	unsigned int nranges;
	struct blk blk;
};

void guest_main(uint64_t start_info) __attribute__((noreturn));

#endif
