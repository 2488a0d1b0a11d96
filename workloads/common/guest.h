/* SPDX-License-Identifier: Apache-2.0 */
/*
 * guest.h: what runs inside a guest, whatever is below it: workloads, the memory that they verify, the
 * report. All state is in one struct guest that is passed around; nothing is global.
 *
 * Rules that keep the verification honest:
 *  - each page that is verified has one owner (cache, heap, kv, churn, clean free memory,
 *    area), and only its owner writes it, in the same thread that verifies it;
 *  - what a page must contain is known without looking at it: from the image's checksums or from a
 *    generator and a version number that is kept elsewhere;
 *  - a wrong page is reported and stays wrong: nothing is repaired silently.
 */
#ifndef OVERBOOK_WORKLOADS_GUEST_H
#define OVERBOOK_WORKLOADS_GUEST_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernel/agent_abi.h"
#include "workloads/area.h"
#include "workloads/common/platform.h"
#include "workloads/extent.h"
#include "workloads/gen.h"
#include "workloads/image.h"
#include "workloads/lat.h"
#include "workloads/layout.h"

#define PAGE_SIZE  4096ULL
#define PAGE_WORDS 512
#define MS	   1000000ULL
#define SECOND	   1000000000ULL

/* Exit codes (AGENT_REG_EXIT): why the guest gave up.
 * The line before it on the console says more. */
enum mg_exit {
	MG_EXIT_BOOT = 10,     /* start info, memory map or command line make no sense */
	MG_EXIT_MEMORY = 11,   /* too little memory */
	MG_EXIT_DISK = 12,     /* no disk, or it does not work */
	MG_EXIT_IMAGE = 13,    /* the disk is not an image that we know */
	MG_EXIT_WORKLOAD = 14, /* no such workload, or a parameter that it does not take */
};

/* The compiler must not carry memory contents across this: a device, or the host, writes there. */
static inline void barrier(void)
{
	__asm__ volatile("" ::: "memory");
}

static inline uint64_t rdtsc(void)
{
	uint32_t lo, hi;

	__asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
	return (uint64_t)hi << 32 | lo;
}

/* --- life.c: time ------------------------------------------------------------------------------ */

struct tsc {
	uint64_t ns_mult; /* ns = cycles * ns_mult >> 32 */
	uint64_t start;
};

/* Time begins now. @khz: of the time stamp counter, 1000 to 10^8. */
void tsc_init(struct guest *g, uint64_t khz);
uint64_t cycles_ns(const struct guest *g, uint64_t cycles);
uint64_t clock_ns(const struct guest *g); /* since tsc_init */

/* --- console.c: the console -------------------------------------------------------------------- */

/* %s %u (uint64_t) %x (uint64_t) %%. Each byte may be an exit: few and short lines. */
void con_printf(const char *fmt, ...);
void con_vprintf(const char *fmt, va_list ap);

/* --- words.c: what the command line says ------------------------------------------------------- */

#define BOOT_NO_PARAM UINT64_MAX
#define BOOT_WORD     64 /* bytes of a word, with its end */

struct boot_config {
	uint64_t seed, common, guest;
	uint64_t param, param2; /* BOOT_NO_PARAM: not given */
	/* Of several struct guest in one machine (Linux, one a CPU): which this is, of how many. */
	uint64_t part, parts;
	char workload[24];
};

bool str_equal(const char *a, const char *b);
bool str_prefix(const char *s, const char *prefix);
/* A number in decimal, or hexadecimal with 0x, that ends at @stop or with the text. */
bool str_number(const char *s, char stop, uint64_t *out);
/* What a guest is to do that is told nothing. */
void boot_defaults(struct boot_config *c);
/*
 * Take each word of @line, at most @max bytes or up to its end, that begins with @prefix ("" takes
 * all). A word that cannot be made sense of is the end, one of others is left alone.
 */
void boot_words(struct guest *g, const char *line, size_t max, const char *prefix);

/* --- report.c: what the host is told ----------------------------------------------------------- */

/* Pages [addr, addr + 4096 n) have just been verified. They are contiguous, n at most 256. */
void agent_checked(struct guest *g, const void *addr, uint64_t n);
void agent_mismatch(struct guest *g, const void *at, uint64_t expect, uint64_t got,
		    enum agent_kind kind);
/* Say why on the console, tell the agent, stop. */
void guest_fail(struct guest *g, enum mg_exit code, const char *fmt, ...) __attribute__((noreturn));

/* --- memory (platform.h) ----------------------------------------------------------------------- */

struct ram {
	uint64_t pages;
	uint64_t total; /* pages of RAM that the machine has, usable or not */
	uint64_t taken; /* pages that ram_take has given out, from the first on */
	uint64_t limit; /* it gives out none from here on */
};

/* --- cache.c: the page cache ------------------------------------------------------------------- */

struct cache_file {
	uint32_t first, pages; /* in the cache */
	uint64_t disk;	       /* its first data page on the disk */
};

struct cache {
	uint64_t base;		 /* usable page index of its first page */
	uint64_t pages;		 /* filled */
	uint64_t data_page;	 /* of the image: where data starts on the disk */
	struct cache_file *file; /* in the order of memory */
	uint64_t nfiles;
	uint64_t *sum; /* [pages], what each page's checksum must be */
};

uint64_t *cache_page(const struct guest *g, uint64_t page);
/* Read and check the super block; data_pages is 0 without a disk. */
void cache_probe(struct guest *g, struct image_super *sb);
void cache_load(struct guest *g, const struct image_super *sb);
bool cache_check(struct guest *g, uint64_t page);
/* Pages [page, page + n) have just been read from the disk: check them, count them, tell the host. */
void cache_verify(struct guest *g, uint64_t page, uint64_t n);
/* Evict two files that are neighbours in memory and read them again, in the other order. */
void cache_reload_pair(struct guest *g);

/* --- heap.c, freemem.c
 * ------------------------------------------------------------------------------ */

struct heap {
	uint64_t base, pages,
		common;	 /* the first @common pages have the same content in all guests */
	uint64_t rotate; /* by how much the common part is rotated in this guest */
	uint64_t key, common_key;
	uint32_t *version;
	uint64_t common_writes;
	struct gen_rng rng;
};

void heap_init(struct guest *g);
bool heap_check(struct guest *g, uint64_t page);
/* Rewrite one page with new content; common and own pages in turn. */
void heap_write(struct guest *g);

struct freemem {
	uint64_t base, clean, untouched, dirty;
};

void freemem_init(struct guest *g);
bool freemem_check(struct guest *g, uint64_t page);

/* --- verify.c
 * ---------------------------------------------------------------------------------------- */

#define VERIFY_BATCH 256

struct verify {
	unsigned int area; /* which is being verified */
	uint64_t page;	   /* next one in it */
};

/* Verify the next pages, at most VERIFY_BATCH of them, round robin over all areas. */
void verify_step(struct guest *g, uint64_t pages);

/* --- workloads
 * --------------------------------------------------------------------------------------- */

struct workload {
	const char *name;
	bool needs_disk, needs_area, needs_bare; /* bare: platform_bare */
	unsigned int batch;			 /* operations between two sleeps */
	uint64_t sleep_ns;
	uint64_t verify_rate; /* pages a second */
	uint64_t write_rate;  /* heap pages a second */
	/* The same in percent of all memory a second; 0: it goes by write_rate. */
	uint64_t write_percent;
	void (*init)(struct guest *g);
	void (*op)(struct guest *g);	  /* NULL: none */
	void (*misdeed)(struct guest *g); /* hostile ones: once, when warm */
	/* The memory workloads, whose area is all memory there is, with no cache, heap or free
	 * part: do some of the work and sleep as it likes. NULL: not one of them. */
	void (*step)(struct guest *g);
	uint64_t param, param2; /* when the command line gives none */
	uint64_t meta; /* a memory workload: pages that it takes for itself, before the area */
};

extern const struct workload work_idle, work_steady, work_filecache, work_kv, work_churn;
extern const struct workload work_counters, work_touch, work_writer, work_unique, work_same,
	work_shuffle, work_first, work_ping, work_cowstorm, work_probe, work_remerge;

/* The workload's own area of memory. */
struct area {
	uint64_t base, pages;
};

/* --- area.c: for the memory workloads
 * -------------------------------------------------------------- */

/* Where one of them is. */
struct mem_work {
	uint64_t *meta; /* as many pages as the workload asked for */
	uint64_t key;	/* of the check words, or of the content */
	uint64_t round, at;
	uint64_t hot;			/* touch: pages that it goes on touching */
	struct area_order order, place; /* order.n is 0: there is none */
	struct gen_rng rng;
	uint64_t due; /* unique, same: tenths of pages to be rewritten */
	uint64_t
		seen; /* unique, same, cowstorm: next page to verify; ping, probe: the last request */
	uint64_t idle_since; /* ping: when that came, ns; cowstorm, probe: when waiting began */
};

uint64_t *area_page(const struct guest *g, uint64_t page);
/* Give all pages from @from on the counter 0, which is their first touch. */
void area_fill(struct guest *g, uint64_t from);
/* Is @page what it must be with this counter? A mismatch is reported. */
bool area_check_page(struct guest *g, uint64_t page, uint64_t counter);
/* The end, unless @value is in [least, most]: @name is param or param2. */
void area_param(struct guest *g, const char *name, uint64_t value, uint64_t least, uint64_t most);

struct filecache {
	struct gen_zipf zipf;
	struct gen_rng rng;
	uint64_t next_reload; /* ns */
};

struct kv {
	uint64_t slots, keys;
	uint64_t key; /* of the generator */
	uint32_t *version;
	struct gen_zipf zipf;
	struct gen_rng rng;
};

#define CHURN_BLOCKS 192

struct churn_block {
	uint64_t id;
	uint32_t start, pages;
};

struct churn {
	struct extent_list *list;
	struct churn_block block[CHURN_BLOCKS];
	unsigned int n;
	uint64_t next_id;
	uint64_t key;
	struct gen_zipf zipf;
	struct gen_rng rng;
};

struct guest {
	struct platform *p;
	struct boot_config cfg;
	struct tsc tsc;
	struct agent_report *report;
	struct ram ram;
	uint64_t disk_pages; /* 0: no disk */
	struct cache cache;
	struct heap heap;
	struct freemem free;
	struct verify verify;
	struct area area;
	const struct workload *work;
	struct filecache filecache;
	struct kv kv;
	struct churn churn;
	struct mem_work mem;
};

/* --- life.c ------------------------------------------------------------------------------------ */

/* Divide memory, load, run the workload of g->cfg. The report is told to the host on the way. */
void guest_run(struct guest *g) __attribute__((noreturn));
/* The area has its final size: put it into the report. */
void report_area(struct guest *g);

#endif
