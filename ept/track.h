/* SPDX-License-Identifier: Apache-2.0 */
/*
 * track.h: which pages of a guest have been written, for whoever wants to know: the merge scanner,
 * a migration, an estimate. Part of ept's public interface (ept.h includes it).
 *
 * One tracker a guest. A collect reads what KVM and the devices have noted since the one before and
 * adds it to a bitmap of each consumer; a consumer takes pages out of its own bitmap when it likes,
 * and so sees each write once, whatever the others do. track.c says why no write is missed.
 *
 * Tracking is switched on and off by the memory slot (gmem_divide), because KVM maps what it logs
 * in 4 KB pages. Of a slot that is off nothing is known, and nobody is told that it is clean.
 *
 * Locking: `lock` orders collects, switching and consumers coming and going, and is held over KVM's
 * system calls. Taking and marking need no lock. Nothing is locked inside it.
 */
#ifndef OVERBOOK_EPT_TRACK_H
#define OVERBOOK_EPT_TRACK_H

#include <pthread.h>
#include <stdatomic.h>

#include "kernel/kernel.h"

struct ept;

#define EPT_TRACK_CONSUMERS 8

/*
 * Where the log of vCPUs' writes comes from; injected so that a test needs no VM. As vm_log_set and
 * vm_log_collect (kernel/vm.h) promise; @slot is an index into mem->slot. Called under the lock.
 */
struct ept_log_ops {
	int (*set)(void *arg, unsigned int slot, bool on);
	int (*collect)(void *arg, unsigned int slot, uint64_t *bitmap);
	void *arg;
};

struct vm;
/* The log of a VM, which must outlive the tracker (track_log.c). */
struct ept_log_ops ept_log_kvm(struct vm *vm);

struct ept_track_stats {
	uint64_t passes;     /* collects */
	uint64_t reported;   /* pages that collects handed out, once a pass, to all consumers */
	uint64_t by_log;     /* of these, by KVM's log */
	uint64_t by_devices; /* of these, by marks; a page of both counts in both */
	uint64_t failed;    /* logs that could not be read: all pages of the slot were handed out */
	uint64_t pages_on;  /* pages whose slot is on, now */
	uint64_t pages_off; /* pages whose slot is off, now: unknown */
	unsigned int slots_on, consumers;
};

struct ept_track {
	struct ept_log_ops log;
	const struct gmem *mem;
	struct ob_arena *arena;
	struct ob_mutex lock;
	uint64_t words;		 /* of a bitmap of all pages */
	_Atomic uint64_t *marks; /* [words] by devices, since the last collect of their slot */
	_Atomic uint64_t *bits[EPT_TRACK_CONSUMERS]; /* [words] each; NULL: nobody */
	/* [mem->nslots] It is on, and everybody has been told of what was before. Not the same as
	 * the log being on: it becomes so later, and ends earlier. */
	_Atomic uint8_t *state;
	uint64_t *scratch; /* the log of one slot, of the largest */
	struct ept_track_stats st;
};

/*
 * Make a tracker of @mem, whose slots must not be divided anew from now on; all are off. @mem and
 * @arena are the caller's and must outlive it.
 */
void ept_track_init(struct ept_track *t, struct ept_log_ops log, const struct gmem *mem,
		    struct ob_arena *arena);
/* Switches all slots off and frees. Detached, and no consumer in a call. */
void ept_track_exit(struct ept_track *t);

/*
 * Have the device accesses of @e, from now on, marked in @t when they end; NULL: no more. Must be
 * attached before a slot is switched on.
 */
void ept_track_attach(struct ept *e, struct ept_track *t);

/*
 * Switch on every slot that [page, page + n) touches. All pages of a slot that was off are then set
 * for every consumer. 0, -EINVAL (outside the guest, or n = 0), or the log's -errno: then nothing
 * has been switched.
 */
int ept_track_on(struct ept_track *t, uint64_t page, uint64_t n);
/*
 * Switch off every slot that lies wholly inside [page, page + n). 0, -EINVAL, or the log's -errno
 * (its pages count as unknown all the same; others may have been switched).
 */
int ept_track_off(struct ept_track *t, uint64_t page, uint64_t n);
/* Is the slot of @page on? */
bool ept_track_known(struct ept_track *t, uint64_t page);

/* A new consumer, for whom all pages are set. Its number, or -ENOSPC: there are 8 already. */
int ept_track_consumer_add(struct ept_track *t);
/* Its owner's, who is in no other call for it. -EINVAL when there is no such consumer. */
int ept_track_consumer_remove(struct ept_track *t, int consumer);

/*
 * One pass: get what was written since the last one to the slots that are on, and add it to every
 * consumer's pages. Beside the running guest and its devices; any thread. 0, or -errno of a log
 * that could not be read: all pages of that slot were set, so nothing is missed.
 */
int ept_track_collect(struct ept_track *t);

/*
 * The pages of [page, page + n) that are set for @consumer: its bits are cleared, and copied to
 * @bitmap, (n + 63) / 64 words, bit 0 for @page. A page that is set may have been written: look at
 * it now, not at a copy made before. One that is not set was not written from the last collect
 * before the take that last returned it until the last collect.
 *
 * Pages of slots that are off are set in @bitmap, stay as they are for the consumer, and are
 * counted in @unknown (may be NULL). Returns how many bits of @bitmap are set, or -EINVAL (no such
 * consumer, outside the guest). Only the consumer's owner, one thread at a time.
 */
int64_t ept_track_take(struct ept_track *t, int consumer, uint64_t page, uint64_t n,
		       uint64_t *bitmap, uint64_t *unknown);

/*
 * Note that [page, page + n) has been changed behind KVM's back: by a device, or by discarding what
 * it held. Call it AFTER the change. Any thread, no lock. 0 or -EINVAL.
 */
int ept_track_mark(struct ept_track *t, uint64_t page, uint64_t n);

void ept_track_read_stats(struct ept_track *t, struct ept_track_stats *out);

#endif
