/* SPDX-License-Identifier: Apache-2.0 */
/*
 * walk.h: part of ept's public interface: from a guest virtual address through the guest's own page
 * tables to a guest physical one, level by level, and what such a walk costs the hardware.
 *
 * The walk is pure: it is given the registers that decide (struct vcpu_paging) and a way to read
 * guest memory; it changes nothing (a CPU would set accessed and dirty bits) and keeps nothing.
 * It says which translation there is, not whether an access is allowed: it hands out the rights
 * that the tables give, and leaves CR0.WP, SMEP, SMAP, protection keys and the like to the reader.
 * An address is taken as it is after linear-address masking (LAM), if the guest uses that.
 *
 * It implements the chapter "Paging" of Intel's manual (SDM), volume 3A, cited by the sections and
 * tables of the editions in which that is chapter 4 (in newer ones it is chapter 5).
 *
 * Nothing in a guest's tables can do more than end a walk: there are at most EPT_WALK_LEVELS steps
 * whatever they point at, and every address read is below 2^MAXPHYADDR.
 */
#ifndef OVERBOOK_EPT_WALK_H
#define OVERBOOK_EPT_WALK_H

#include "kernel/kernel.h"

#define EPT_WALK_LEVELS 5 /* of the deepest mode */

/* SDM 4.1.1: the paging modes. */
enum ept_walk_mode {
	EPT_WALK_OFF,	 /* CR0.PG = 0: addresses are physical ones */
	EPT_WALK_32BIT,	 /* 4.3: two levels, 4 KB and (CR4.PSE) 4 MB pages */
	EPT_WALK_PAE,	 /* 4.4: three levels, 4 KB and 2 MB pages */
	EPT_WALK_4LEVEL, /* 4.5: 4 KB, 2 MB and, where the CPU has them, 1 GB pages */
	EPT_WALK_5LEVEL, /* 4.5 with CR4.LA57 */
	EPT_WALK_NMODES,
};

/* Why a walk ended. */
enum ept_walk_stop {
	EPT_WALK_UNFINISHED,   /* it did not: bad registers, or memory could not be read just now */
	EPT_WALK_DONE,	       /* at a page */
	EPT_WALK_NONCANONICAL, /* no address of this mode (volume 1, 3.3.7.1), or beyond 32 bits */
	EPT_WALK_NOT_PRESENT,  /* an entry with P = 0 */
	EPT_WALK_RESERVED,     /* an entry with P = 1 and a reserved bit set */
	EPT_WALK_OUTSIDE,      /* a table that is not in RAM */
	EPT_WALK_NSTOPS,
};

/* One entry that the walk has read. Levels are 5 PML5, 4 PML4, 3 PDPT, 2 PD, 1 PT. */
struct ept_walk_entry {
	unsigned int level;
	gpa_t at; /* where it lies */
	uint64_t value;
	bool in_register;	 /* a PDPTE of PAE paging: the CPU holds it since CR3 was loaded */
	bool writable, user, nx; /* rights of all levels down to this one; without it if it ended
				  * the walk */
	bool accessed;		 /* its own flags: A, and for a page D and (with CR4.PGE) G */
	bool dirty, global;
};

struct ept_walk {
	gva_t gva;
	enum ept_walk_mode mode;
	enum ept_walk_stop stop;
	unsigned int level; /* where it ended: the level of the page's entry, or of the entry (read
			     * or not) that stopped it; for EPT_WALK_NONCANONICAL the mode's
			     * first; 0 with paging off */
	gpa_t stop_at;	    /* the entry that stopped it, read or not; 0 where no entry did */
	unsigned int n;	    /* entries read */
	struct ept_walk_entry entry[EPT_WALK_LEVELS]; /* [n], from the top */

	/* Of the page, when stop is EPT_WALK_DONE. */
	gpa_t gpa;		 /* of the byte at gva; nothing says that it is RAM */
	uint64_t page_size;	 /* bytes; 0 with paging off */
	bool writable, user, nx; /* 4.6.1: R/W and U/S of all levels, XD of any (with EFER.NXE) */
	bool global;		 /* 4.10.2.4 */
	bool accessed, dirty;	 /* A in all entries that have one, and D in the page's: a read, and
				  * a write, would set nothing more (4.8) */
};

/*
 * How the walk reads guest memory: @bytes (4 or 8) at @at, which is a multiple of @bytes. 0 with
 * *@value set, -EFAULT when that is not RAM, another -errno when it could not be read just now.
 */
struct ept_walk_mem {
	int (*read)(void *arg, gpa_t at, unsigned int bytes, uint64_t *value);
	void *arg;
};
/* Such a reader, of a guest's RAM: @arg is a struct gmem. Each read is a device access (mem.h): it
 * waits while the table is frozen, and so must not be used by whoever has frozen it. */
int ept_walk_read_gmem(void *arg, gpa_t at, unsigned int bytes, uint64_t *value);

/*
 * Translate @gva. The guest may run meanwhile (then each level is as it was when it was read), but
 * @regs were taken while it was parked. Any thread, no locks, bounded time. Returns
 *   0        *out describes the page;
 *   -EFAULT  there is none: out->stop says why, out->level where;
 *   -EINVAL  no CPU can be in the state that @regs describe; *out holds only gva;
 *   others   of @mem->read; *out holds the levels before, and out->level the one not read.
 */
int ept_walk(const struct vcpu_paging *regs, const struct ept_walk_mem *mem, gva_t gva,
	     struct ept_walk *out);

/* Words for a person. A level that @mode has not is "none". */
const char *ept_walk_mode_name(enum ept_walk_mode mode);
const char *ept_walk_stop_name(enum ept_walk_stop stop);
const char *ept_walk_level_name(enum ept_walk_mode mode, unsigned int level);

/*
 * Memory references of the hardware for this translation when nothing of it is cached, neither in
 * the TLB nor in the caches for parts of a walk (SDM 4.10): the most that a miss can cost.
 */
struct ept_walk_cost {
	unsigned int native; /* the guest's entries, were it alone on the machine: g */
	unsigned int nested; /* with nested paging (EPT, NPT) */
	unsigned int shadow; /* with shadow paging */
};

/*
 * The cost of @w, which must have reached a page, on a host whose tables for the guest (EPT, NPT)
 * have @host_levels levels (4 or 5) and map by pages of @host_page bytes (4 KB or 2 MB). 0, or
 * -EINVAL when that is not so.
 */
int ept_walk_cost(const struct ept_walk *w, unsigned int host_levels, uint64_t host_page,
		  struct ept_walk_cost *out);

#endif
