/* SPDX-License-Identifier: Apache-2.0 */
/* cell.h: private to the cell process: its state, and its parts (cell*.c). */
#ifndef OVERBOOK_HARNESS_CELL_H
#define OVERBOOK_HARNESS_CELL_H

#include "harness/harness.h"

/* Linux guests (cell_linux.c); all zero: there are none. */
struct cell_linux {
	bool on, agent;
	unsigned int vcpus;
	void *initrd;
	size_t initrd_len;
	uint64_t boot_ns; /* so long a guest may take to boot */
	uint64_t hang_ns; /* an agent that says nothing for so long: the guest hangs */
	char ready[LINUX_MAX_READY + 1]; /* said on a console by who has booted; "": not known */
	bool remark;			 /* on a guest that falls silent: nobody looks at it */
	int input_fd; /* a terminal, whose input is for the one guest's console; -1: none */
	pthread_t input;
	bool has_input;
	_Atomic bool input_quit;
};

/* How far a Linux guest is with booting, by the cell's clock (cell_boot.c). */
struct cell_boot {
	bool begun;
	uint64_t since_ns;   /* its start, or the reset since which it has not been up */
	bool again;	     /* the latter */
	unsigned int loops;  /* resets since then */
	unsigned int resets; /* ever, as last seen */
	bool up;	     /* it has been since the last reset */
	unsigned int times;  /* boots before this one that were ready: serial_heard */
	uint64_t bytes, bytes_ns;
	bool remarked;	      /* on this boot */
	unsigned int remarks; /* made in all */
	char remark[200];     /* the last */
};

/* What agents of a guest have reported (cell_count.c). */
struct cell_count {
	unsigned int resets;
	struct agent_report before; /* counters of those that are gone, */
	struct agent_report last;   /* and the last of the one that is there */
};

struct cell_guest {
	unsigned int id;
	char workload[16];
	uint64_t page_base; /* its first page among those of the fleet */
	struct vm *vm;
	struct ept ept;
	struct ept_track track; /* what it writes, for the merge engine */
	bool tracked;
	struct ept_builder builder; /* with --pages adaptive; e is NULL: none */
	int console_fd;
	/* Watchdog: when its heartbeat last changed, by its CPU time and by the clock. */
	uint64_t beat, beat_cpu_ns, beat_ns;
	/* Of a Linux guest beat_ns is when somebody looked last, and this for how long it has said nothing while
	 * it could have. */
	uint64_t silent_ns;
	bool running;
	struct cell_boot boot;
	bool gone;		  /* it has ended, and its memory was given back */
	struct agent_report last; /* of one that is gone */
	struct cell_count count;
	struct cell_kvmstat *kvmstat; /* NULL: this KVM has none */
	struct ksm_io *io;	      /* NULL: no hints of what it reads */
	struct cell_disk {
		struct cell_guest *g;
		uint32_t digest; /* of what is in it (content.h) */
	} disk[VM_MAX_DISKS];
	int disk_fd[VM_MAX_DISKS]; /* those that are its own (--disk) */
	unsigned int ndisks;
};

struct cell {
	unsigned int number;
	char domain_name[DOMAIN_NAME_SIZE];
	char unbound[200]; /* why it is not bound to its node; "": it is, or there is one node */
	bool ready;	   /* all guests are made */
	struct ob_host host;
	enum ept_pages pages;
	struct ept_huge_rule huge_rule;
	uint64_t huge_next_ns;	      /* when to look for such as are to be built */
	_Atomic uint64_t huge_cpu_ns; /* what that cost */
	struct kvm kvm;
	struct ob_arena *arena_ept, *arena_ksm;
	struct io_worker *worker;
	struct ksm_domain *domain; /* NULL: the engine needs none */
	struct ksm *ksm;
	struct ksm_opts ksm_opts;
	struct ksm_unmerge undo;   /* a switch of the sharing mode is under way (cell_switch.c) */
	struct ksm_budget *budget; /* shared with the other cells */
	struct cell_guest *guest;
	unsigned int nguests;
	uint64_t *meter;     /* the fleet's meter words */
	uint64_t *frame_pfn; /* behind them: host frame of each pool frame, from the coordinator */
	uint8_t *kinds;	     /* behind these: what each page of the fleet is (agent_abi.h) */
	uint64_t meter_pages, meter_frames;
	uint64_t frames, frame_base; /* of our pool; its first frame among those of the meter */
	const char *kvm_mode; /* how KVM maps memory here; NULL: not looked yet (cell_ept.c) */
	int image_fd;
	void *kernel;
	size_t kernel_len;
	struct cell_linux lx;

	pthread_t scanner;
	bool has_scanner;
	struct ob_mutex scan_lock; /* held during a step; whoever holds it has paused merging */
	pthread_cond_t scan_cond;  /* the scanner rests, or lets the main thread go first */
	_Atomic unsigned int scan_wanted; /* so many want the lock: a mutex alone is not fair */
	bool scan_quit;
	bool paused;
	bool switching;		   /* from one engine to another (cell_switch.c) */
	bool io_hints;		   /* --io-hints */
	uint32_t kernel_digest;	   /* of what they boot (content.h) */
	struct ob_mutex wake_lock; /* the scanner's rest ends early: woken */
	pthread_cond_t wake_cond;
	bool woken;
	bool stood; /* for want of memory the guests stand still; merging goes on */
	bool deaf; /* a slow disk keeps the I/O worker from hearing any guest; as of the last look */
	/* Since when they are paused, stand, or are not heard (0: they are not), and for how long before. */
	uint64_t held_since_ns, held_ns;
	struct cell_wset *wset; /* the samplers; NULL: there are none */
};

/* Take the scanner's lock between two of its steps, before others; give it back. */
void cell_scan_hold(struct cell *c);
void cell_scan_release(struct cell *c);

/*
 * cell_io.c: hints at I/O time. Before any guest is made, and at the very end; a guest's hints before
 * it is added to the engine, and after it was removed; and what its disk and loader say, before it
 * runs.
 */
void cell_io_setup(struct cell *c, const json_t *doc);
void cell_io_exit(struct cell *c);
void cell_io_guest(struct cell *c, struct cell_guest *g);
void cell_io_guest_exit(struct cell_guest *g);
void cell_io_listen(struct cell *c, struct cell_guest *g);
/* Another engine is to come: of what its disks have read until now nobody knows what has become. */
void cell_io_again(struct cell *c, struct cell_guest *g);
/* The scanner rests until @until_ns, its lock given up; true: it was woken before. */
bool cell_io_rest(struct cell *c, uint64_t until_ns);
void cell_io_wake(struct cell *c);

/* cell_wset.c: samplers of all guests, if the set-up document asks for them; the thread that steps
 * them; no sampling while the cell is paused or its guests stand (counted; the scanner's lock is
 * held); the end, guests being there still and the scanner's lock not held; and what a sample says
 * of a guest. */
int cell_wset_setup(struct cell *c, const json_t *doc, struct ob_err *e);
int cell_wset_start(struct cell *c, struct ob_err *e);
void cell_wset_pause(struct cell *c, bool pause);
void cell_wset_stop(struct cell *c);
void cell_wset_sample(struct cell *c, unsigned int guest, json_t *o, bool full);
/* What `ept stat` shows of it (docs/control.md). */
void cell_wset_stat(struct cell *c, unsigned int guest, json_t *o);

/* Its disks: those that were named for it (cell_linux_guest), in that order, and behind them the image that
 * workloads read, which our agent finds wherever it is: so that /dev/vda is what its owner takes it for. */
int cell_guest_disks(struct cell *c, struct cell_guest *g, const json_t *doc, struct vm_config *cfg,
		     struct ob_err *e);
/* Make guest @g of the cell from its part of the set-up document. */
int cell_guest_create(struct cell *c, struct cell_guest *g, const json_t *doc, struct ob_err *e);
void cell_guest_destroy(struct cell *c, struct cell_guest *g);
/* Stop a guest whose heartbeat has not changed although it had the CPU. */
void cell_guest_watch(struct cell *c, struct cell_guest *g);
/* If it has ended by itself: give all its memory and its frames back. Not while the caller holds
 * the scanner's lock, unless the cell is paused. */
void cell_guest_give_back(struct cell *c, struct cell_guest *g);
/* Its state for a sample; @full adds latencies, mismatches and the last console line. */
json_t *cell_guest_sample(struct cell *c, struct cell_guest *g, bool full);

/* cell_count.c: what the guest's agent says (NULL: nothing yet, of the boot after @resets resets), with the
 * counters of those before it. Pure; and what it says now. */
void cell_count(struct cell_count *n, unsigned int resets, const struct agent_report *said,
		struct agent_report *out);
void cell_guest_report(struct cell_guest *g, struct agent_report *out);

/* Answer a question about guests' pages, `do` being "ept-...": {"vms": [...]}, a document for each
 * guest of this cell that it is about, or an error (cell_ept.c). */
json_t *cell_ept(struct cell *c, const json_t *doc);

/* cell_huge.c: --pages. Before any guest is made; its part of a guest's configuration; then with its
 * ept, from when it is there to when it goes. */
int cell_huge_setup(struct cell *c, const json_t *doc, struct ob_err *e);
void cell_huge_config(const struct cell *c, struct vm_config *cfg);
void cell_huge_guest(struct cell *c, struct cell_guest *g);
void cell_huge_guest_exit(struct cell_guest *g);
/* Is there something for the scanner's thread to do, and doing it: ns until the next time. */
bool cell_huge_steps(const struct cell *c);
uint64_t cell_huge_step(struct cell *c, uint64_t now_ns);
/* What ept says of it; null when memory is of 4 KiB pages. */
json_t *cell_huge_json(struct cell_guest *g);

/*
 * cell_linux.c: open a disk's file and lock it (linux_lock_disk), @what being whose it is in a line. The
 * descriptor or -errno.
 */
int cell_open_disk(const char *what, const char *path, bool rw, struct ob_err *e);
/*
 * Linux guests. Their part of the set-up document, and the end; a guest's part of its
 * configuration, which opens its disks (closed by the exit, also after an error); is it one, and does
 * it hang (false: it is none); what a sample says of it; and input from a terminal.
 */
int cell_linux_setup(struct cell *c, const json_t *doc, struct ob_err *e);
void cell_linux_exit(struct cell *c);
int cell_linux_guest(struct cell *c, struct cell_guest *g, const json_t *doc, struct vm_config *cfg,
		     struct ob_err *e);
void cell_linux_guest_exit(struct cell_guest *g);
bool cell_linux_watch(struct cell *c, struct cell_guest *g, uint64_t heartbeat, uint64_t now);
void cell_linux_sample(struct cell *c, struct cell_guest *g, json_t *o);
int cell_linux_input_start(struct cell *c, struct ob_err *e);
void cell_linux_input_stop(struct cell *c);

/*
 * cell_boot.c: has a Linux guest booted? What it is to say, before it runs; look, while it runs, and end
 * it or remark on it, and remark on it at the end of a run; how far it is, @said being what its agent says;
 * what a sample says of it. And whether the guests are held (paused, standing, not heard) has changed.
 */
void cell_boot_guest(struct cell *c, struct cell_guest *g);
void cell_boot_watch(struct cell *c, struct cell_guest *g);
void cell_boot_last(struct cell *c, struct cell_guest *g);
uint64_t cell_boot_phase(const struct cell *c, struct cell_guest *g, uint64_t said);
void cell_boot_sample(const struct cell_guest *g, json_t *o);
void cell_boot_held(struct cell *c);

/* cell_kvmstat.c: opened when the VM is there, closed before it goes. */
void cell_kvmstat_open(struct cell_guest *g);
void cell_kvmstat_close(struct cell_guest *g);
/* {"id", "vm": [values], "vcpu": [[values] a vCPU]}; NULL: there are none. */
json_t *cell_kvmstat_json(struct cell_guest *g);
/* The same for a person: {"vm": {name: value}, "vcpu": [the same a vCPU]}; NULL: there are none. */
json_t *cell_kvmstat_named(struct cell_guest *g);
/* {"vm": [names], "vcpu": [names], "guests": [of each, as above]}; NULL: there are none. */
json_t *cell_kvmstat_sample(struct cell *c);

/* cell.c: the engine starts, with the scanner if it wants one; the scanner ends. */
int cell_engine_start(struct cell *c, struct ob_err *e);
void cell_scanner_stop(struct cell *c);

/* cell_guest.c: the guest's memory is the engine's business from now on; 0 or -errno. And no longer:
 * its frames, if it has any, are given back, so it must not be mapped to them any more. */
int cell_guest_merge(struct cell *c, struct cell_guest *g);
void cell_guest_unmerged(struct cell *c, struct cell_guest *g);

/*
 * cell_switch.c: from one sharing mode to another. The engine stops; what it has merged is taken back,
 * for some time, and said how far that is; then either another engine takes its place, which is to be
 * started, or it goes on itself.
 */
void cell_switch_leave(struct cell *c);
json_t *cell_switch_unmerge(struct cell *c, const json_t *doc);
int cell_switch_engine(struct cell *c, const json_t *doc, struct ob_err *e);
int cell_switch_back(struct cell *c, struct ob_err *e);

/* cell_plant.c: what a benchmark has done to guests and scanner while they run. */
int cell_plant(struct cell *c, const json_t *doc, struct ob_err *e);
#define PLANT_OPEN 128 /* places asked about at once, at most */
json_t *cell_planted(struct cell *c, const json_t *doc);
void cell_scan_gap(struct cell *c, const json_t *doc);
/* What KVM's log of writes takes; while the scanner, who switches it, stands still. */
uint64_t cell_log_bytes(const struct cell *c);

#endif
