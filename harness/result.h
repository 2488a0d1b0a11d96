/* SPDX-License-Identifier: Apache-2.0 */
/*
 * result.h: private to harness/: what result.c, result_host.c and report.c share.
 */
#ifndef OVERBOOK_HARNESS_RESULT_H
#define OVERBOOK_HARNESS_RESULT_H

#include "harness/harness.h"

#define RESULT_SCHEMA "overbook.result/1"

/* A number, or null when it is not one (a ratio of nothing, a time that never came). */
json_t *result_real(double v);
/* A count; JSON numbers of the library are signed 64-bit. */
json_t *result_count(uint64_t v);
/* {name, bytes, xxh3}: which file it was, without saying where it lay; no hash unless @hash. Nulls for what cannot be
 * read. */
json_t *result_file_json(const char *path, bool hash);
/* "heap" and the like, for enum agent_kind; "unknown" for what a guest made up. */
const char *result_kind_name(uint64_t kind);
/* @bytes of metadata for each touched page; negative: there are none. */
double result_meta_per_page(const struct run_result *r, uint64_t bytes);
/* table_cost.c: "272 ns", "1.5 us"; returns @buf, at least 24 bytes. And the costs of a run, nothing
 * when none was measured. */
char *result_ns(char *buf, size_t n, double ns);
void table_costs(FILE *out, const struct run_result *r);
/* Write @len bytes so that a reader finds all or nothing of them; "-" is standard output. */
int result_write_text(const char *text, size_t len, const char *path, struct ob_err *e);
/* Make folder @path and those above it. 0 or -errno with a line. */
int result_mkdirs(const char *path, struct ob_err *e);
/* result_wset.c: null when it was not asked for; and the sum over all guests, true when there is an
 * estimate of each. */
json_t *result_wset_config_json(const struct wset_config *c);
json_t *result_wset_json(const struct run_result *r, const struct run_guest *g);
bool result_wset_bytes(const struct run_result *r, uint64_t *bytes);
/* The status of several runs together: the worst of them. */
enum run_status result_overall(const struct run_result *runs, unsigned int nruns);

/* --- result_domain.c: --domain and NUMA nodes ------------------------------------------------ */

/* Of the configuration: [{name, guests}]. New references, all of these. */
json_t *result_domain_config_json(const struct fleet_config *c);
/* The name of a guest's domain; null in a run that did not come so far. */
json_t *result_domain_name_json(const struct run_result *r, const struct run_guest *g);
/* [{name, guests, saved, ...}]: figures are null in a run that failed. */
json_t *result_domains_json(const struct run_result *r);
/* {nodes, cells_bound}; null with one node. */
json_t *result_numa_json(const struct run_result *r);
/* table.c: the domains of the runs, when there are several. */
void result_domains_print(FILE *out, const struct run_result *runs, unsigned int nruns);
/* table_content.c: one line of what most of the shared memory is; none when nobody knows. */
void table_content(FILE *out, const struct run_result *r);

/* --- result_linux.c: which guests were booted -------------------------------------------------- */

/* Into the configuration @o. */
void result_guest_config(json_t *o, const struct fleet_config *c);
/* For the table's first line: ", Linux 6.1.0 with 2 vCPUs". */
void table_linux(FILE *out, const struct linux_opts *l);
/* The last lines of a guest's console, when it failed or was remarked on; else null. New reference. */
json_t *result_tail_json(const struct run_guest *g);

/* --- result_huge.c: --pages ------------------------------------------------------------------ */

/* null when there are no huge pages. New reference. */
json_t *result_huge_json(const struct ept_huge_stats *h);
/* From such a document; what is not there is 0. */
void result_huge_take(struct ept_huge_stats *h, const json_t *o);
/* All guests together. */
void result_huge_sum(const struct run_result *r, struct ept_huge_stats *sum);

/* --- result_kvmstat.c: what KVM counted, over the time of a run ------------------------------ */

#define RESULT_KVMSTAT_READINGS 512 /* kept at most */
#define RESULT_KVMSTAT_VCPUS	256

struct result_kvmstat *result_kvmstat_new(unsigned int guests);
void result_kvmstat_free(struct result_kvmstat *k);
/* Is it time to ask the cells? Always when it is the @last reading. */
bool result_kvmstat_due(struct result_kvmstat *k, uint64_t now_ns, bool last);
/* Enter what one cell has answered (cell_kvmstat_sample), into the reading that is open. Anything:
 * what does not fit is left out; NULL is nothing. */
void result_kvmstat_take(struct result_kvmstat *k, const json_t *answer);
/* All cells have answered: the reading was at @t, in seconds. */
void result_kvmstat_end(struct result_kvmstat *k, double t);
/* The times were counted from too early: subtract. @k may be NULL. */
void result_kvmstat_shift(struct result_kvmstat *k, double since);
/* The document; null when there is nothing (@k may be NULL). New reference. */
json_t *result_kvmstat_json(struct result_kvmstat *k);
/* The last value of a statistic of VMs, over all guests; negative: there is none of that name. */
double result_kvmstat_last(struct result_kvmstat *k, const char *name);
/* The same of a statistic of vCPUs, over all of them. */
double result_kvmstat_last_vcpu(struct result_kvmstat *k, const char *name);

#endif
