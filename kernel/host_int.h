/* SPDX-License-Identifier: Apache-2.0 */
/* host_int.h: private to the real host: its operations that have a file of their own. */
#ifndef OVERBOOK_KERNEL_HOST_INT_H
#define OVERBOOK_KERNEL_HOST_INT_H

#include "kernel/host.h"

/* host_batch.c: memory given back in batches. init finds out how this kernel can. */
void host_batch_init(struct ob_host *h);
void host_batch_exit(struct ob_host *h);
int host_discard_many(struct ob_host *h, const struct ob_range *ranges, unsigned int n);

/* host_huge.c */
int host_huge(struct ob_host *h, hva_t at, uint64_t size, bool on);
int host_collapse(struct ob_host *h, hva_t at, uint64_t size);
int host_split(struct ob_host *h, hva_t at);
int host_huge_units(struct ob_host *h, hva_t at, uint64_t n, uint8_t *out);

/* host_uffd.c */
int host_uffd_open(struct ob_host *h, struct ob_uffd_caps *caps);
int host_uffd_register(struct ob_host *h, int fd, hva_t at, uint64_t size, bool protect);
int host_uffd_unregister(struct ob_host *h, int fd, hva_t at, uint64_t size);
int64_t host_uffd_move(struct ob_host *h, int fd, hva_t dst, hva_t src, uint64_t size);
int host_uffd_copy(struct ob_host *h, int fd, hva_t dst, hva_t src, uint64_t size);
int host_uffd_zero(struct ob_host *h, int fd, hva_t dst, uint64_t size);
int host_uffd_protect(struct ob_host *h, int fd, hva_t at, uint64_t size, bool on);
int host_uffd_wake(struct ob_host *h, int fd, hva_t at, uint64_t size);
int host_uffd_wait(struct ob_host *h, int fd, int stop_fd, struct ob_fault *out, unsigned int max);

#endif
