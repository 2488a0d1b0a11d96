/* SPDX-License-Identifier: Apache-2.0 */
/*
 * proto.h: what coordinator and cells say to each other: JSON documents, each after its length in
 * four bytes, over a socket pair. The coordinator asks, a cell answers each question once, in
 * order. Both ends are this program, started together; a document that does not parse is a broken
 * invariant on the side of the cell, and a lost cell on the side of the coordinator.
 */
#ifndef OVERBOOK_HARNESS_PROTO_H
#define OVERBOOK_HARNESS_PROTO_H

#include <jansson.h>
#include <stdint.h>

#include "ksm/ksm.h"

/* File descriptors of a cell, as the coordinator lays them out. */
#define CELL_FD_CONTROL 3
#define CELL_FD_POOL	4
#define CELL_FD_META	5
#define CELL_FD_METER	6
#define CELL_FD_CONSOLE 7 /* of the one guest of `run`; else /dev/null */
#define CELL_FD_BUDGET	8 /* one page: struct ksm_budget */
#define CELL_FDS	9

/*
 * CELL_FD_METER holds a meter word for each page of the fleet, then the host frame of each frame of all
 * pools, then a byte for each page of the fleet: what it is to its guest (agent_abi.h), where an agent
 * under Linux says so. A file with holes: what is not written takes nothing.
 */
static inline uint64_t cell_meter_size(uint64_t pages, uint64_t frames)
{
	return ob_align_up((pages + frames) * sizeof(uint64_t) + pages, OB_PAGE_SIZE);
}

#define PROTO_MAX (64u << 20)

/*
 * Priority (nice) of the two threads that talk, once the guests are there: whoever watches and stops
 * guests must come to run however many of them want the CPU. Only root may raise it; else it stays.
 */
#define CONTROL_NICE (-10)

/*
 * Deadlines are milliseconds of CLOCK_MONOTONIC, PROTO_NEVER for none. Once a signal has asked this
 * process to stop (ob_stop_signal), what is waited for gets PROTO_GRACE_MS more at most, whatever its
 * deadline: a cell that hangs must not keep the fleet from ending.
 */
#define PROTO_NEVER    INT64_MAX
#define PROTO_GRACE_MS 1000
int64_t proto_deadline(int timeout_ms);

/* Send @doc (the reference is taken). 0 or -errno (-EPIPE: the other end is gone, -ETIMEDOUT). */
int proto_send(int fd, json_t *doc, int64_t deadline);
/* Receive a document. 0, -EPIPE at the end, -ETIMEDOUT, -EPROTO. */
int proto_recv(int fd, json_t **doc, int64_t deadline);

/* Numbers of a document that may be missing. */
uint64_t proto_u64(const json_t *o, const char *key);
const char *proto_str(const json_t *o, const char *key);

/* What a cell says of its merging: struct ksm_stats as a document, and back. */
json_t *proto_pack_stats(const struct ksm_stats *k);
void proto_unpack_stats(const json_t *o, struct ksm_stats *k);
/* Add @k to @sum, the longest freeze by maximum. */
void proto_add_stats(struct ksm_stats *sum, const struct ksm_stats *k);

#endif
