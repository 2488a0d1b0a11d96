/* SPDX-License-Identifier: Apache-2.0 */
/* bed.h: one VM in the test's own process, on the real KVM, with nothing merged. */
#ifndef OVERBOOK_TESTS_BED_H
#define OVERBOOK_TESTS_BED_H

#include "kernel/vm.h"
#include "tests/cli.h"

struct bed {
	struct ob_host host;
	struct kvm kvm;
	struct io_worker *worker;
	void *kernel; /* the file it boots */
	size_t kernel_len;
	struct vm *vm;
};

/* Only what VMs need: the test makes its own. */
void bed_open(struct bed *b);
/* The rest of @cfg is the caller's; kernel and worker are filled in. Of the microguest: */
void bed_microguest(struct bed *b, struct vm_config cfg);
/* Of a kernel of a few instructions (tiny.h). */
void bed_tiny(struct bed *b, const char *begin, const char *end, struct vm_config cfg);
void bed_start(struct bed *b);
/* Until it has come to an end by itself. */
void bed_wait(struct bed *b);
void bed_close(struct bed *b);

void bed_write(struct bed *b, uint64_t at, const void *buf, uint64_t n);
void bed_read(struct bed *b, uint64_t at, void *buf, uint64_t n);

#endif
