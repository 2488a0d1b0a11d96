/* SPDX-License-Identifier: Apache-2.0 */
/*
 * agent_abi.h: what the hypervisor and our own guest agree on. Included by both sides, so it needs
 * nothing but <stdint.h>. The agent device is one MMIO page: the guest sleeps through it, says
 * which pages it has just verified, and reports how it ended. Counters are not sent: the guest
 * keeps them in a page of its own memory, whose address it tells once, and the host reads them when
 * it likes.
 *
 * How the guest is told about its machine: by its command line (PVH start info), words NAME=VALUE:
 *   workload=NAME param=N param2=N seed=N common=N guest=N
 *   virtio_mmio.device=4K@0xd0001000:5   (as Linux spells it)
 *   agent=0xd0000000
 */
#ifndef OVERBOOK_KERNEL_AGENT_ABI_H
#define OVERBOOK_KERNEL_AGENT_ABI_H

#include <stdint.h>

#define AGENT_GPA     0xd0000000ULL
#define AGENT_SIZE    0x1000ULL
#define VIRTIO_GPA    0xd0001000ULL /* device n at VIRTIO_GPA + n * VIRTIO_STRIDE */
#define VIRTIO_STRIDE 0x1000ULL

/* Registers: 8-byte, naturally aligned accesses only. */
#define AGENT_REG_MAGIC	   0x00 /* r: AGENT_MAGIC */
#define AGENT_REG_TSC_KHZ  0x08 /* r: guest TSC frequency in kHz */
#define AGENT_REG_SLEEP	   0x10 /* w: sleep at most this many ns, or until a device interrupt */
#define AGENT_REG_REPORT   0x18 /* w: gpa of struct agent_report, page-aligned */
#define AGENT_REG_CHECKED  0x20 /* w: gfn << 16 | pages: these have just been verified */
#define AGENT_REG_MISMATCH 0x28 /* w: gpa of a wrong word (also in the report) */
#define AGENT_REG_EXIT	   0x30 /* w: the guest has ended: 0 well, else a code */
#define AGENT_REG_PANIC	   0x38 /* w: fatal exception: vector << 56 | rip (48 bits) */
#define AGENT_REG_PANIC2   0x40 /* w: before PANIC: the faulting address (cr2) or error code */

#define AGENT_MAGIC	   0x31544e4547414f42ULL /* "BOAGENT1" */
#define AGENT_REPORT_MAGIC 0x3154524f50455242ULL

/* Where the guest is. A fleet is warm when all guests are. */
enum agent_phase {
	AGENT_BOOT = 0,
	AGENT_LOADING = 1, /* reading the image into the page cache, filling the heap */
	AGENT_WARM = 2,	   /* doing the workload's operations */
};

/* One wrong word of guest memory, as the guest saw it. */
struct agent_mismatch {
	uint64_t gpa;
	uint64_t expect;
	uint64_t got;
	uint64_t kind; /* enum agent_kind */
};

enum agent_kind {
	AGENT_KIND_CACHE =
		1,	     /* page cache against the image's checksum: expect/got are checksums */
	AGENT_KIND_HEAP = 2, /* heap against its generator */
	AGENT_KIND_KV = 3,   /* a value of the hash table */
	AGENT_KIND_CHURN = 4, /* an allocated block */
	AGENT_KIND_FREE = 5,  /* clean free memory that is not zero */
	AGENT_KIND_AREA = 6,  /* a page of a memory workload's area */
};

#define AGENT_MISMATCHES 16
/* Latency buckets: bucket b counts operations of [2^(b/4), 2^((b+1)/4)) ns, roughly: octave b >> 2,
 * quarter b & 3 of it, by the two bits below the leading one. */
#define AGENT_LAT_BUCKETS 160

/*
 * The report. Only the guest writes it; every counter only grows (but phase) and each is one
 * aligned 8-byte store, so the host reads any of them at any time and gets a whole value. The host
 * believes none of it: these are the guest's claims, bounded before use.
 */
struct agent_report {
	uint64_t magic;
	uint64_t phase;
	uint64_t heartbeat;	/* grows while the guest, each of its workers, makes progress */
	uint64_t ops;		/* operations of the workload */
	uint64_t checked_pages; /* pages verified */
	uint64_t mismatches;	/* wrong words found, each page counted once per check */
	uint64_t written_pages; /* pages of the heap rewritten */
	uint64_t disk_pages;	/* pages read from the disk */
	uint64_t cache_pages;	/* sizes of the parts of memory, in pages */
	uint64_t heap_pages;
	uint64_t heap_common_pages;
	uint64_t free_clean_pages;
	uint64_t free_dirty_pages;
	/* The area of a memory workload (counters, touch, ...): the gpa of its first page, and its
	 * size. Its pages follow each other in RAM, holes not counted. Both 0: there is none. */
	uint64_t area_gpa;
	uint64_t area_pages;
	uint64_t job_ns;      /* what the workload's one timed job took (first); 0: not done */
	uint64_t area_hot;    /* pages of the area that touch goes on touching */
	uint64_t job_page_ps; /* first: ps a page, in the median of runs of pages */
	uint64_t free_untouched_pages; /* before those of free_dirty_pages, the last of RAM */
	/* probe: how many pages it has guessed about (0: not yet), how often it said "somebody holds
	 * it", and was right; medians of the time of a write, to guesses that somebody holds, that
	 * nobody does, and to its own pages that are there twice, and once. */
	uint64_t probe_guesses, probe_yes, probe_right;
	uint64_t probe_held_ns, probe_other_ns, probe_twice_ns, probe_once_ns;
	/* How many workers do the workload, and how many its memory has room for. Linux: as far as there
	 * is room, one a CPU. */
	uint64_t workers, workers_room;
	struct agent_mismatch mismatch[AGENT_MISMATCHES]; /* the first ones */
	uint64_t lat[AGENT_LAT_BUCKETS];
};
_Static_assert(sizeof(struct agent_report) <= 4096, "the report is one page");

/*
 * The first page of the area of the workload ping (and of probe, which uses ask and done only): the
 * host asks for one page to be touched, the
 * guest does it and says how long it took. The host writes page and write, then ask, which is a
 * number that was not there before; the guest writes the answer, then done with the same number.
 * One request at a time. As with all of a guest's memory, the host believes none of it.
 */
struct agent_ping {
	uint64_t ask;
	uint64_t page;	/* of the area, from 1 on: the first page is this one */
	uint64_t write; /* 0: read it */
	uint64_t unused[5];
	uint64_t done;
	uint64_t ns;	  /* the touch took so long; AGENT_PING_REFUSED: there is no such page */
	uint64_t counter; /* how often the page has been written by now */
};
#define AGENT_PING_REFUSED UINT64_MAX

/*
 * An agent that is a program under Linux has no agent device: it sends frames through the port named
 * AGENT_PORT_NAME of a virtio console. A frame is this header and @bytes bytes behind it, at most
 * AGENT_FRAME_MAX. It is told what to do by the kernel's command line, words as above with
 * AGENT_WORD_PREFIX before each, but needs neither agent= nor virtio_mmio.device=.
 */
#define AGENT_PORT_NAME	  "overbook.agent"
#define AGENT_WORD_PREFIX "overbook."
#define AGENT_FRAME_MAGIC 0x4d415246U /* "FRAM" */
#define AGENT_FRAME_MAX	  8192

enum agent_frame_type {
	AGENT_FRAME_REPORT = 1,	 /* struct agent_report: several times a second */
	AGENT_FRAME_CHECKED = 2, /* uint64_t each: gfn << 16 | pages, as AGENT_REG_CHECKED; a gfn of
				   * AGENT_GFN_UNKNOWN: verified, but the agent may not know where */
	AGENT_FRAME_MISMATCH = 3, /* uint64_t gpa of a wrong word (also in the report) */
	AGENT_FRAME_EXIT = 4,  /* uint64_t code: the agent has ended: 0 well, else enum mg_exit */
	AGENT_FRAME_KINDS = 5, /* uint64_t gfn, then a byte a page from there on, enum
				* agent_page_kind: all RAM, bit by bit, every few seconds */
};

/* What the guest's kernel uses a page for, at the moment when the agent looked. */
enum agent_page_kind {
	AGENT_PAGE_UNKNOWN = 0, /* not told */
	AGENT_PAGE_FREE = 1,	/* nobody's; whatever was in it last */
	AGENT_PAGE_ANON = 2,	/* a program's own memory */
	AGENT_PAGE_CACHE = 3,	/* of files, programs' code among them */
	AGENT_PAGE_SLAB = 4,	/* the kernel's small objects */
	AGENT_PAGE_TABLES = 5,	/* page tables */
	AGENT_PAGE_CODE = 6,	/* the kernel's code, */
	AGENT_PAGE_RODATA = 7,	/* its constants, */
	AGENT_PAGE_DATA = 8,	/* and its variables */
	AGENT_PAGE_KERNEL = 9,	/* other memory that it allocated: stacks, modules, buffers */
	AGENT_PAGE_BOOT = 10, /* taken at boot: its table of all pages, hash tables, ACPI tables */
	AGENT_PAGE_KINDS
};
#define AGENT_GFN_UNKNOWN 0xffffffffffffULL

struct agent_frame {
	uint32_t magic;
	uint16_t type;
	uint16_t bytes;
};

#endif
