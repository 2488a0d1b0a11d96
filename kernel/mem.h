/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mem.h: guest RAM as a short sorted list of regions, and the one length-checked way from a guest
 * physical address to host memory. The list has more than one region from 3 GiB up (the PCI hole).
 *
 * Devices do not touch guest memory through gmem_ptr: they bracket each access with
 * gmem_access_begin/end, behind which ept implements ept_dma_begin/end. Parking the vCPUs does not
 * stop a read from disk into guest memory, so whoever takes pages from a guest must be able to see
 * which of them a device is about to write.
 */
#ifndef OVERBOOK_KERNEL_MEM_H
#define OVERBOOK_KERNEL_MEM_H

#include "kernel/host.h"
#include "kernel/lock.h"

#define GMEM_MAX_REGIONS 8
#define GMEM_HOLE_START	 (3 * OB_GIB) /* devices live in [3 GiB, 4 GiB) */
#define GMEM_HOLE_END	 (4 * OB_GIB)

struct gmem_region {
	gpa_t gpa;
	hva_t hva;
	uint64_t size;	     /* bytes, a multiple of the page size */
	uint64_t first_page; /* index of its first page among all RAM pages, holes not counted */
	uint32_t page_size;  /* what may back it: 4096, or 2 MiB after gmem_huge */
};

/* Regions are cut into slots at multiples of this, so that no huge page lies across two. */
#define GMEM_SLOT_ALIGN (2 * OB_MIB)
#define GMEM_MAX_SLOTS	32767 /* KVM on x86 has no more, and most have fewer */

/*
 * A part of one region as KVM knows it, a memory slot: the unit in which KVM's log of writes is
 * switched on and off. Slots are in page order and leave nothing out.
 */
struct gmem_slot {
	uint64_t first_page; /* a multiple of 64: one word of a bitmap is never of two slots */
	uint64_t pages;
	uint32_t id; /* KVM's number for it */
	bool log;    /* KVM's dirty log is on; vm_log_set's */
};

struct gmem_ops;

struct gmem {
	struct ob_host *host;
	char name[32]; /* of its mappings: "ob:vm3:ram" */
	struct gmem_region region[GMEM_MAX_REGIONS];
	unsigned int nregions;
	struct gmem_slot *slot; /* [nslots], owned */
	unsigned int nslots;
	uint64_t pages;		    /* all RAM pages */
	const struct gmem_ops *ops; /* NULL until ept is attached */
	void *ops_arg;
};

/* One device access under way. @priv is the implementation's. */
struct gmem_access {
	void *ptr; /* host address of the range, valid until end */
	gpa_t gpa;
	uint64_t len;
	bool write;
	uint32_t priv;
};

/* What ept implements for the devices. begin may sleep while the range is frozen; it returns
 * -EFAULT when the range is not RAM, -EBUSY when there are too many accesses under way. */
struct gmem_ops {
	int (*access_begin)(void *arg, gpa_t at, uint64_t len, bool write, struct gmem_access *acc);
	void (*access_end)(void *arg, struct gmem_access *acc);
};

/* Map @size bytes (page multiple) of RAM for a guest. The caller owns @gm. */
int gmem_init(struct gmem *gm, struct ob_host *host, uint64_t size, const char *name);
/*
 * Cut the regions into slots of at most @slot_bytes each; 0: one slot a region, as gmem_init leaves
 * it. Before KVM is told of them. -EINVAL when @slot_bytes is not a multiple of GMEM_SLOT_ALIGN,
 * -E2BIG when that were more than GMEM_MAX_SLOTS; nothing is changed then.
 */
int gmem_divide(struct gmem *gm, uint64_t slot_bytes);
/* Let the kernel back all of it by huge pages. Before it is used, and before an ept is attached. 0
 * or -errno: then it is of small pages. */
int gmem_huge(struct gmem *gm);
void gmem_exit(struct gmem *gm);

/*
 * Host address of [at, at+len), or NULL unless all of it lies inside one region. len 0 gives NULL.
 * Does not bracket: for the loader (before the guest runs) and for whoever has frozen the range.
 */
void *gmem_ptr(const struct gmem *gm, gpa_t at, uint64_t len);

/* RAM pages are also counted without holes: page 0 .. gm->pages - 1. */
hva_t gmem_page_hva(const struct gmem *gm, uint64_t page);
gfn_t gmem_page_gfn(const struct gmem *gm, uint64_t page);
/* The page index of @g, or UINT64_MAX when it is not RAM. */
uint64_t gmem_gfn_page(const struct gmem *gm, gfn_t g);
/* How many pages from @page on lie in the same region: a host range may not be longer. */
uint64_t gmem_page_span(const struct gmem *gm, uint64_t page);
/* The slot of a RAM page: an index into gm->slot. */
unsigned int gmem_page_slot(const struct gmem *gm, uint64_t page);

/*
 * Device access. Returns 0, -EFAULT (not RAM, or not inside one region), -EBUSY. Each begin is
 * followed by one end, from the same thread or another. Must not be called with the range frozen
 * by the caller itself.
 */
int gmem_access_begin(struct gmem *gm, gpa_t at, uint64_t len, bool write, struct gmem_access *acc);
void gmem_access_end(struct gmem *gm, struct gmem_access *acc);
/* Bracketed copies, for rings and headers. Same errors. */
int gmem_read(struct gmem *gm, gpa_t at, void *buf, uint64_t len);
int gmem_write(struct gmem *gm, gpa_t at, const void *buf, uint64_t len);

#endif
