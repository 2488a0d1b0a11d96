/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ksm.h: the public header of ksm/, which merges identical pages.
 *
 * A *domain* is what may be merged with each other: a pool of frames and an index of page contents,
 * in memfds shared by all cells of the domain, holding offsets only. An *engine* (off, hash,
 * kernel) is what does the merging inside one cell. The *meter* says what was saved, the same for
 * all.
 */
#ifndef OVERBOOK_KSM_KSM_H
#define OVERBOOK_KSM_KSM_H

#include <stdatomic.h>

#include "ept/ept.h"

/* --- domain: pool.c and index.c ---------------------------------------------------------- */

#define KSM_MAX_CELLS 1024

/* The worst bugs that we can have, planted on purpose to prove that they are caught. */
enum ksm_inject {
	KSM_INJECT_NONE = 0,
	KSM_INJECT_FLIP_FRAME = 1,   /* flip a bit in a frame while guests share it */
	KSM_INJECT_SKIP_COMPARE = 2, /* merge on equal short hashes, without comparing */
	KSM_INJECT_LOSE_BREAK = 4, /* map the frame again over a page that the guest has written */
};

struct ksm_domain; /* one process's view of it: pool.c */

/*
 * Create the two memfds of a domain for at most @frames frames and @cells cells; close-on-exec, the
 * caller owns them. The coordinator does this, then opens the domain itself as cell KSM_NO_CELL.
 */
#define KSM_NO_CELL UINT32_MAX
int ksm_domain_create(struct ob_host *h, uint64_t frames, unsigned int cells, int *pool_fd,
		      int *meta_fd);
/* Open what create made. The fds stay the caller's. -EINVAL when they are not a domain. */
int ksm_domain_open(struct ob_host *h, int pool_fd, int meta_fd, unsigned int cell,
		    struct ob_arena *arena, struct ksm_domain **out);
void ksm_domain_close(struct ksm_domain *d);

struct ksm_domain_stats {
	uint64_t frames;	    /* capacity */
	uint64_t live, filling;	    /* frames in use, and being filled */
	uint64_t hints, entries;    /* of the index */
	uint64_t reaped;	    /* frames given back to the host so far */
	uint64_t pool_blocks_bytes; /* what the pool file holds, as the kernel says */
	uint64_t meta_bytes;	    /* what index and frame table hold, as the kernel says */
};
int ksm_domain_stats(struct ksm_domain *d, struct ksm_domain_stats *out);

/*
 * Give frames back that no cell holds any more. The coordinator's work, alone: looks at up to
 * @budget frames from where the last call ended, returns how many it freed; or the first -errno,
 * after having looked at the rest all the same: a frame that fails is passed, and met again in the
 * next round.
 */
int64_t ksm_domain_reap(struct ksm_domain *d, uint64_t budget);
/* A cell has died: drop its holds, and whatever it was filling. The coordinator,
 * when it is gone. */
void ksm_domain_cell_died(struct ksm_domain *d, unsigned int cell);
/*
 * Forget all that was learnt of contents, as if the domain had just been made: its secret stays. The
 * coordinator, while no cell steps. -EBUSY: a frame is in use; -errno of giving the memory back.
 */
int ksm_domain_reset(struct ksm_domain *d);
/* Is @frame live? For the meter. */
bool ksm_domain_frame_live(struct ksm_domain *d, uint32_t frame);
/* --inject flip-frame: flip one bit in a live frame that is held. 0 or -ENOENT. Coordinator. */
int ksm_domain_flip(struct ksm_domain *d, uint64_t seed);

/* --- content: hash.c --------------------------------------------------------------------- */

/*
 * The hash that pages are found by: of 4096 bytes, any alignment, with a secret of KSM_SECRET_BYTES
 * that each domain draws at random. pick: the fastest implementation that this CPU has; all give
 * the same values. Any thread.
 */
#define KSM_SECRET_BYTES 192
typedef uint64_t (*ksm_hash_fn)(const void *page, const void *secret);
ksm_hash_fn ksm_hash_pick(void);

/* --- how much CPU merging may take: budget.c ------------------------------------------------ */

#define KSM_BUDGET_MAX_PERCENT	   6400 /* 64 cores */
#define KSM_BUDGET_DEFAULT_PERCENT 5

/*
 * An account of CPU time, in memory that all cells share; no pointers, and no lock. All fields are
 * budget.c's.
 */
struct ksm_budget {
	_Atomic uint64_t percent; /* of one core; 0: no limit */
	_Atomic uint64_t credited_ns, burst_end_ns;
	_Atomic int64_t credit_ns, burst_ns;
};
/* Before anybody uses it. Times are of one clock for all cells (now_ns of the host). */
void ksm_budget_init(struct ksm_budget *b, unsigned int percent, uint64_t now_ns);
/* A guest of @pages pages has come: an advance to look at all of it. */
void ksm_budget_burst(struct ksm_budget *b, uint64_t now_ns, uint64_t pages);
/* How long to rest before spending; 0: go on. Any thread. */
uint64_t ksm_budget_wait(struct ksm_budget *b, uint64_t now_ns);
/* @ns of CPU time were spent. Any thread. */
void ksm_budget_charge(struct ksm_budget *b, uint64_t now_ns, uint64_t ns);
/* --- origins: notes.c -------------------------------------------------------------------- */

/*
 * Where the content of a page came from, in one word: a file, and which of its pages. The file goes
 * by a digest of its identity, KSM_ORIGIN_FILE_BITS long: two files may have the same, and whoever
 * makes up a page may say what he likes. So an origin finds pages that are worth comparing, and
 * names them in a report, and proves nothing.
 */
#define KSM_ORIGIN_NONE 0ULL
enum ksm_origin_class {
	KSM_ORIGIN_UNKNOWN = 0,
	KSM_ORIGIN_DISK = 1,   /* block of a disk image */
	KSM_ORIGIN_KERNEL = 2, /* page frame that a kernel is loaded to, of its ELF file */
};
#define KSM_ORIGIN_FILE_BITS 24
#define KSM_ORIGIN_BLOCKS    (1ULL << 36)
#define KSM_ORIGIN_CLASS(o)  ((enum ksm_origin_class)((o) >> 60))
#define KSM_ORIGIN_FILE(o)   ((uint32_t)((o) >> 36) & ((1u << KSM_ORIGIN_FILE_BITS) - 1))
#define KSM_ORIGIN_BLOCK(o)  ((o) & (KSM_ORIGIN_BLOCKS - 1))
/* KSM_ORIGIN_NONE when @block is KSM_ORIGIN_BLOCKS or more. Bits of @file above are cut off. */
uint64_t ksm_origin(enum ksm_origin_class cls, uint32_t file, uint64_t block);
/* That of a frame. */
uint64_t ksm_domain_origin(const struct ksm_domain *d, uint32_t frame);

/* --- hints at I/O time: io_hint.c -------------------------------------------------------- */

#define KSM_IO_RING 256 /* runs of pages that wait in one guest's ring */

/*
 * The hints of one guest: made before it is added (struct ksm_guest), freed after it was removed.
 * @wake (may be NULL) is called when hints begin to wait, by whoever gave them, with no lock held:
 * the engine's next step should not be long in coming.
 */
struct ksm_io *ksm_io_new(struct ksm_domain *d, struct ob_arena *arena, void (*wake)(void *arg),
			  void *wake_arg);
void ksm_io_free(struct ksm_io *io);
/* Nothing waits any more, and nothing was counted: an engine begins that has not heard of it so far, and
 * pages that were read long ago may hold anything by now. Any thread. */
void ksm_io_forget(struct ksm_io *io);
/* The guest's pages [page, page + n) hold what begins at @origin. Any thread; never waits; when the
 * ring is full, the hint is dropped and counted. */
void ksm_io_read(struct ksm_io *io, uint64_t page, uint64_t n, uint64_t origin);
/* [origin, origin + n) has another content from now on: nothing is found by it any more, and hints
 * of it that wait are void. */
void ksm_io_written(struct ksm_io *io, uint64_t origin, uint64_t n);

/* --- engines: engine.c ------------------------------------------------------------------- */

struct ksm_io; /* io_hint.c */

struct ksm_guest {
	struct ept *ept;
	unsigned int vm;	 /* fleet-wide number */
	uint64_t page_base;	 /* fleet-wide number of its page 0: names a page in the index */
	struct ept_track *track; /* says what was written; NULL: anything may have been */
	struct ksm_io *io;	 /* says what was read from a disk; NULL: nothing is known */
};

/* Why a guest stood still for longer than it should have. */
enum ksm_late {
	KSM_LATE_PLANNING,  /* the work took longer than was reckoned */
	KSM_LATE_PREEMPTED, /* the scanner's thread lost its CPU to another meanwhile */
	KSM_LATE_WAITING,   /* the guest's vCPUs took long to stop */
	KSM_LATE_LOCK,	    /* the scanner slept: for a lock, or for the kernel */
	KSM_NLATE,
};
const char *ksm_late_name(enum ksm_late l);

/* Bucket b counts what took [2^(b/4), 2^((b+1)/4)) ns, roughly; as workloads/lat.h. */
#define KSM_LAT_BUCKETS EPT_LAT_BUCKETS

/* What merging makes guests wait for: hash_pace.c. All 64 bits wide. */
struct ksm_pauses {
	uint64_t late[KSM_NLATE];	 /* pauses longer than the bound, by cause */
	uint64_t pause[KSM_LAT_BUCKETS]; /* parked batches, from the kick to the release */
	uint64_t stall[KSM_LAT_BUCKETS]; /* calls that change mappings while other guests run */
};

/* --- what each operation costs: cost.c ------------------------------------------------------- */

enum ksm_cost_kind {
	KSM_COST_SKIP,	    /* a page passed over: not written, not asked for */
	KSM_COST_SYNC,	    /* a page whose backing was read from the kernel */
	KSM_COST_HASH,	    /* a page hashed */
	KSM_COST_LOOK,	    /* a candidate looked up in the index */
	KSM_COST_FREEZE,    /* a batch: to freeze its pages and to let them go again */
	KSM_COST_COMPARE,   /* a page checked while frozen: compared, or hashed again */
	KSM_COST_MAKE,	    /* a frame filled and published */
	KSM_COST_SHARE_RUN, /* a page mapped to its frame, in a run of several */
	KSM_COST_SHARE_ONE, /* the same, alone */
	KSM_COST_REMERGE,   /* the same, of a page that had broken off before */
	KSM_COST_ZERO,	    /* a zero page dropped */
	KSM_COST_RELEASE,   /* a break found: its frame given back */
	KSM_NCOSTS,
};

/* CPU time that @ops operations of one kind took together. Only a part of them is measured. */
struct ksm_cost {
	uint64_t ns, ops;
};
/* For machines, "share_run"; and for a person, "page merged, in a run". */
const char *ksm_cost_name(enum ksm_cost_kind kind);
const char *ksm_cost_text(enum ksm_cost_kind kind);
/* ns of one operation; negative when none was measured. */
double ksm_cost_each(const struct ksm_cost *c);

struct ksm_stats {
	uint64_t passes;      /* full passes over all guests */
	uint64_t dirty_pages; /* pages that the tracker said were written */
	uint64_t
		asked_pages; /* pages that another holder of their content asked to look at again */
	uint64_t hashed_pages;
	uint64_t volatile_pages; /* pages hashed that had changed since the pass before */
	uint64_t budget_rests;	 /* steps not done because the CPU budget was used up */
	uint64_t candidates;	 /* pages whose hash stayed the same */
	uint64_t frames_made;	 /* frames filled by this cell */
	uint64_t merged_pages;	 /* pages replaced by a frame, again and again */
	uint64_t merge_runs;	 /* mmaps that took */
	uint64_t zero_pages;	 /* zero pages dropped */
	uint64_t compare_failed; /* equal hash, other content (or changed under us) */
	uint64_t broken;	 /* copy-on-write breaks found */
	uint64_t skipped_vma;	 /* merges not done because mappings would run out */
	uint64_t freezes;	 /* parked batches */
	uint64_t freeze_ns, freeze_max_ns;
	uint64_t cpu_ns;      /* of the scanner */
	uint64_t meta_bytes;  /* this cell's own metadata for merging */
	uint64_t sync_failed; /* windows that could not be looked at: the kernel did not say */
	uint64_t huge_broken; /* huge pages broken to merge in them */
	uint64_t
		huge_left; /* pages that would have been merged, but for the huge page; each pass */
	uint64_t io_hints; /* pages named by hints (io_hint.c) */
	uint64_t io_dropped; /* of them, dropped: there was no room */
	uint64_t io_void; /* of them, void: page or block was written before they were looked at */
	uint64_t io_merged;   /* pages merged because of a hint */
	uint64_t io_missed;   /* pages that were to be, and had changed, or for which was no room */
	uint64_t deferred;    /* pages put off to the end of a pass, as mappings are short */
	uint64_t map_failed;  /* runs that the host would not map: their pages are as they were */
	uint64_t fill_failed; /* pages for which the pool's file had no room */
	uint64_t restored; /* pages merged where that took no mapping more: old runs, made whole */
	uint64_t reverted; /* of the merged: by dropping the copy in front of their frame */
	uint64_t stall_ns; /* of all calls that change mappings while other guests run */
	struct ksm_pauses pauses;
	struct ksm_cost cost[KSM_NCOSTS];
};

struct ksm;

struct ksm_opts {
	unsigned int inject;  /* enum ksm_inject */
	uint64_t step_pages;  /* pages looked at in one step, default 512 */
	uint64_t pass_gap_ns; /* rest between passes once a pass finds little, default 250 ms */
	struct ksm_budget *budget; /* whoever else spends from it; NULL: no limit */
	uint64_t max_pause_ns;	   /* a guest stands still for so long at most, default 500 us */
};

/* Upper bound in ns of the fastest @part (0 to 1) of what a histogram counts; 0: nothing. Pure. */
uint64_t ksm_lat_part(const uint64_t lat[KSM_LAT_BUCKETS], double part);

struct ksm_slot; /* engine.h */

struct ksm_engine_ops {
	const char *name;
	/* Begin merging; guests were added before. 0 or -errno with a line in @e. */
	int (*start)(struct ksm *k, struct ob_err *e);
	/*
	 * Do up to about @budget_pages pages of work at time @now_ns. Returns how long to rest, in
	 * ns, until the next step is worth it (0: go on at once). NULL: no work in this process.
	 */
	uint64_t (*step)(struct ksm *k, uint64_t now_ns, uint64_t budget_pages);
	/*
	 * Look at pages that hints have named, about @budget_pages of them, and at nothing else.
	 * Returns how many it was. NULL: it looks at none.
	 */
	uint64_t (*hint_step)(struct ksm *k, uint64_t budget_pages);
	/* Stop merging; what is merged stays. */
	void (*stop)(struct ksm *k);
	/*
	 * The guest in @slot (engine.h) leaves: free what is kept about it. Its holds of frames are
	 * given back by engine.c, after this. NULL: nothing is kept.
	 */
	void (*remove)(struct ksm *k, unsigned int slot);
	/* Does it change anything that ksm_unmerge_step would have to take back? */
	bool merges;
	/* Stopped: nothing of [page, page + n) of a guest, in one region, is to be merged any more by
	 * whoever merges without us; what he has merged has memory of its own again. 0 or -errno. NULL:
	 * nobody does. */
	int (*forbid)(struct ksm *k, struct ksm_slot *s, uint64_t page, uint64_t n);
	/* Stopped: pages of the guest have left their frames: give these back. NULL: there are none. */
	void (*release)(struct ksm *k, struct ksm_slot *s);
};

/* By name; NULL when there is none. */
const struct ksm_engine_ops *ksm_engine_find(const char *name);

/* @domain may be NULL for engines that need none (off, kernel). */
int ksm_new(struct ksm **out, const struct ksm_engine_ops *ops, struct ob_host *host,
	    struct ksm_domain *domain, const struct ksm_opts *opts, struct ob_arena *arena);
int ksm_add_guest(struct ksm *k, const struct ksm_guest *g);
/* A guest is gone (its memory still mapped): give its frames back. Never while a step runs. */
void ksm_remove_guest(struct ksm *k, unsigned int vm);
int ksm_start(struct ksm *k, struct ob_err *e);
uint64_t ksm_step(struct ksm *k, uint64_t now_ns, uint64_t budget_pages);
/*
 * In the rest between two steps: look at what hints have named (struct ksm_io), about @budget_pages.
 * Returns how many pages it was: 0, and there is nothing left to do, or the CPU budget is used up.
 */
uint64_t ksm_hint_step(struct ksm *k, uint64_t budget_pages);
void ksm_stop(struct ksm *k);

/* What was merged is taken back (unmerge.c): how far that has come. Zero before the first step. */
struct ksm_unmerge {
	uint64_t pages;	     /* that were shared and have memory of their own again */
	uint64_t zero_pages; /* that were dropped, the same */
	uint64_t pauses, pause_ns, pause_max_ns;
	/* unmerge.c's: */
	unsigned int slot;
	uint64_t page, synced; /* the next page, and the first that was not looked at */
	uint64_t done;	       /* pages and zero_pages when the last round ended */
	uint64_t stuck_since;  /* since then rounds have met nothing but pages in use */
	uint64_t rest_until;   /* nothing is done before */
	uint64_t left, piece;
	void *buf;
};
/*
 * After ksm_stop: take back what was merged in its guests, a piece at a time; a guest stands still for
 * one piece at most. Returns 1: there is more, let the guests run before the next; 0: each page is what
 * it would be had nothing ever been merged; or -errno of the host: what is done is done, and
 * the engine may be started again, over what is left. By the thread that steps, while nobody does.
 */
int ksm_unmerge_step(struct ksm *k, struct ksm_unmerge *u);
/* When no step follows: gives back what it holds. */
void ksm_unmerge_end(struct ksm *k, struct ksm_unmerge *u);
/* Another rest between passes from the next one on. Never while a step runs. */
void ksm_set_pass_gap(struct ksm *k, uint64_t gap_ns);
/* Does the engine want ksm_step calls? */
bool ksm_engine_steps(const struct ksm *k);
/* Any thread. */
void ksm_read_stats(struct ksm *k, struct ksm_stats *out);
void ksm_free(struct ksm *k);

/* --- Linux KSM from outside: sysfs.c, guardian.c ----------------------------------------- */

struct ksm_sysfs_counters {
	uint64_t full_scans, pages_shared, pages_sharing, pages_unshared, pages_volatile;
	uint64_t zero_pages; /* ksm_zero_pages, 0 where the kernel has none */
	uint64_t stable_node_dups, stable_node_chains;
	int64_t general_profit;
	uint64_t ksmd_cpu_ns; /* user and system time of ksmd */
};
int ksm_sysfs_read(struct ksm_sysfs_counters *out);

/*
 * How fast it is driven (pace.c): as fast as it can be, as the kernel starts, by the kernel's own
 * scan-time advisor, or as fast as it can be with a rest of @sleep_ms after each scan. Text: "fastest",
 * "default", "advisor", "sleep:MS".
 */
enum ksm_pace_kind {
	KSM_PACE_FASTEST,
	KSM_PACE_DEFAULT,
	KSM_PACE_ADVISOR,
	KSM_PACE_SLEEP,
};
struct ksm_pace {
	enum ksm_pace_kind kind;
	unsigned int sleep_ms; /* of KSM_PACE_SLEEP: at most KSM_PACE_MAX_SLEEP */
};
#define KSM_PACE_MAX_SLEEP 600000
#define KSM_PACE_TEXT	   16
/* -EINVAL, -ERANGE. Pure. */
int ksm_pace_parse(const char *s, struct ksm_pace *p);
const char *ksm_pace_text(const struct ksm_pace *p, char buf[static KSM_PACE_TEXT]);

/*
 * Drive Linux KSM. A guardian process, spawned from @self_exe with the arguments "ksm-guardian FD
 * LOCK PACE", keeps the old settings and puts them back when the pipe closes, however this process
 * ends. Several users at once are counted by a lock file (@lock_path, NULL: the default); they must
 * ask for the same pace. -EACCES/-ENOENT with a line in @e when KSM cannot be driven here, -EBUSY
 * when somebody drives it at another pace, or with another lock file. The strings must stay until
 * the driver is stopped.
 */
struct ksm_driver {
	int pipe_fd;
	int guardian_pid;
	const char *self_exe, *lock_path, *root; /* for one more guardian; the caller's */
	struct ksm_pace pace;
};
int ksm_driver_start(struct ksm_driver *d, const char *self_exe, const char *lock_path,
		     const struct ksm_pace *pace, struct ob_err *e);
/*
 * Let KSM stand still (or go on), so that a reading of what it has merged is of one moment. Returns
 * when its batch under way is over, which takes a second at most. Whoever else uses KSM stands
 * still as well, so hold it for a moment only. What is held when this process ends the guardian
 * puts right.
 */
int ksm_driver_hold(bool hold);
/* Another rest after each scan, for KSM_PACE_SLEEP; the guardian puts back what was there before
 * all of it. For a benchmark that is alone with KSM: others that drive it see no sign of it. */
int ksm_driver_sleep(unsigned int ms);
/* Close the pipe and wait until the guardian has put everything back; when it was killed, another
 * one is started to do so. */
void ksm_driver_stop(struct ksm_driver *d);
/* main() of the guardian. */
int ksm_guardian_main(int pipe_fd, const char *lock_path, const struct ksm_pace *pace);

/*
 * Has pages_sharing been stable over two full scans? A step function over readings of the counters.
 */
struct ksm_settle {
	uint64_t last_scans, last_sharing;
	unsigned int stable;
	bool seen;
};
bool ksm_settled(struct ksm_settle *s, const struct ksm_sysfs_counters *c);

/* --- the meter: meter.c ------------------------------------------------------------------ */

/*
 * What backs each guest page, one word a page, written by the cells and counted by the coordinator:
 * the same for all engines. A frame with s pages in v VMs saves v - 1 pages across VMs and s - v
 * within one.
 */
#define KSM_METER_UNTOUCHED 0ULL
#define KSM_METER_ZERO	    1ULL
#define KSM_METER_PFN	    (1ULL << 60) /* | host frame number */
#define KSM_METER_FRAME	    (2ULL << 60) /* | frame_base + frame of the pool */
#define KSM_METER_OWN	    (3ULL << 60) /* | fleet-wide page: memory of its own, pfn not known */
#define KSM_METER_KIND(w)   ((w) >> 60)
#define KSM_METER_VALUE(w)  ((w) & ((1ULL << 60) - 1))

struct ksm_meter_vm {
	const uint64_t *words;
	uint64_t pages;
	const uint8_t *kinds; /* [pages], for ksm_meter_kinds; NULL: all 0 */
};

struct ksm_meter_result {
	uint64_t pages, touched;
	uint64_t zero, intra, inter; /* pages saved */
	uint64_t frames;	     /* distinct frames behind the guests (zero page not counted) */
	uint64_t pool_frames;	     /* of those, known to be frames of the pool */
	uint64_t shared_pages;	     /* pages whose frame has more than one page */
};

/*
 * Write the words of one guest: syncs, and looks at every page. @page_base is its first page among those
 * of the fleet, @frame_base its pool's first frame among those of all pools that are counted together:
 * equal frame numbers of two pools are not the same memory. 0 or -errno.
 */
int ksm_meter_guest(struct ept *e, uint64_t page_base, uint64_t frame_base, uint64_t *words);
/* The same of [first, first + npages) only, into as many @words. */
int ksm_meter_pages(struct ept *e, uint64_t page_base, uint64_t frame_base, uint64_t first,
		    uint64_t npages, uint64_t *words);
/* Count. -EINVAL: a word that is none; -ENOMEM. */
int ksm_meter_count(const struct ksm_meter_vm *vm, unsigned int nvms, struct ksm_meter_result *out);

/*
 * One VM's part, in bytes. Each page of a frame with s pages is charged the s-th part of it, as the
 * kernel's Pss does: that is @resident. What is saved within the VM is what it would save were it
 * alone on the host; what others add to that is saved across VMs. So
 *	touched = resident + zero + intra + inter
 * for each VM, and each of the five, summed over all VMs, is that of the whole, to the byte (for
 * resident: frames * OB_PAGE_SIZE).
 */
struct ksm_meter_share {
	uint64_t touched, resident, zero, intra, inter;
};
/* Count, and say the part of each VM in @share (@nvms of them; NULL: not wanted). Takes twice the
 * time. -EINVAL also when they have 16 TiB or more. */
int ksm_meter_shares(const struct ksm_meter_vm *vm, unsigned int nvms, struct ksm_meter_result *out,
		     struct ksm_meter_share *share);

/*
 * What is saved by pages of one kind, in bytes. A frame with s pages in v VMs saves s - v and v - 1 pages,
 * and each of its pages has an s-th part of that, whatever kind the others are of. So each column,
 * summed over all kinds, is that of the whole, to the byte.
 */
struct ksm_meter_kind {
	uint64_t touched, zero, intra, inter;
};
/* @kind[nkinds], of all VMs together; a kind that is @nkinds or more counts as 0. -EINVAL as above;
 * -ENOMEM. meter_kinds.c */
int ksm_meter_kinds(const struct ksm_meter_vm *vm, unsigned int nvms, unsigned int nkinds,
		    struct ksm_meter_kind *kind);

#endif
