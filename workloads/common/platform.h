/* SPDX-License-Identifier: Apache-2.0 */
/*
 * platform.h: what the workloads need of the machine below them. There are two: the microguest, which
 * is its own kernel (workloads/microguest/), and a program under Linux (workloads/linux/). Each
 * defines struct platform, its own state, and these functions; guest.h and everything in this folder
 * is the same for both.
 *
 * Memory is numbered pages, from 0 on. The microguest's are its RAM, one to one; under Linux they are
 * a stretch of addresses, which the kernel backs as it likes.
 */
#ifndef OVERBOOK_WORKLOADS_PLATFORM_H
#define OVERBOOK_WORKLOADS_PLATFORM_H

#include <stdbool.h>
#include <stdint.h>

struct cache_file;
struct guest;
struct platform;
struct workload;

/* Who speaks, in lines of the console. */
extern const char platform_name[];
/* Why there is no disk, to be read after "needs a disk: ". */
extern const char platform_no_disk[];
/* Is all memory ours, one to one, in one piece and untouched since boot? Workloads with needs_bare
 * are refused where it is not, and the report says no address of the area. */
extern const bool platform_bare;

/* One byte of the console. */
void con_put(char c);

/* A word of the command line that boot_word does not know. @ok: it makes sense, or is none of ours. */
void platform_word(struct guest *g, const char *w, bool *ok);
/* A workload that only this platform has, or NULL. */
const struct workload *platform_workload(const char *name);

/* Find out what memory there is: ram.pages, ram.total, ram.taken, ram.limit. */
void ram_init(struct guest *g);
uint64_t *ram_page(const struct guest *g, uint64_t index);
/* How many pages from @index on are contiguous, at most @max. */
uint64_t ram_span(const struct guest *g, uint64_t index, uint64_t max);
/* Zeroed pages in one piece, for good. The end when there are not enough. */
void *ram_take(struct guest *g, uint64_t bytes);
/* Pages [index, index + n) are nobody's from now on; what they hold is left behind in them. */
void ram_leave(struct guest *g, uint64_t index, uint64_t n);
/* Pages that the guest touches whatever it does: its code, its bookkeeping. */
uint64_t ram_own(const struct guest *g);
/* The guest physical address of @at; UINT64_MAX: not to be found out. */
uint64_t ram_gpa(const struct guest *g, const void *at);

/* Find the disk. Its pages; 0: there is none. */
uint64_t disk_open(struct guest *g);
/* Read disk pages [disk, disk + n) into memory from page @index on. An error is the end. */
void disk_read(struct guest *g, uint64_t disk, uint64_t index, uint64_t n);
/*
 * Read files [from, to) of the cache from the disk into their places, whatever was there before, and
 * verify each page (cache_verify). An error is the end.
 */
void disk_load_files(struct guest *g, uint64_t from, uint64_t to);

/* At most so long; the microguest's ends early when a device has something to say. */
void agent_sleep(struct guest *g, uint64_t ns);

/* The report (g->report) is there from now on. */
void platform_report(struct guest *g);
/* Tell the host: pages [at, at + 4096 n) have just been verified. They are contiguous, at most 256. */
void platform_checked(struct guest *g, const void *at, uint64_t n);
/* Tell the host: there is a wrong word at @gpa, which is in the report. */
void platform_mismatch(struct guest *g, uint64_t gpa);
/* The end, with a code of enum mg_exit. */
void platform_end(struct guest *g, uint64_t code) __attribute__((noreturn));

#endif
