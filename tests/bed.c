/* SPDX-License-Identifier: Apache-2.0 */
/* bed.c: one VM in the test's own process, on the real KVM, with nothing merged. */
#include "tests/bed.h"

#include <criterion/criterion.h>
#include <stdlib.h>

#include "tests/tiny.h"

void bed_open(struct bed *b)
{
	struct ob_err e;

	*b = (struct bed){.vm = NULL};
	cr_assert(!ob_host_linux_init(&b->host, &e), "%s", e.msg);
	cr_assert(!kvm_open(&b->kvm, &e), "%s", e.msg);
	cr_assert(!io_worker_start(&b->worker));
}

static void make(struct bed *b, struct vm_config *cfg)
{
	struct ob_err e;

	cfg->kernel = b->kernel;
	cfg->kernel_len = b->kernel_len;
	cfg->worker = b->worker;
	cr_assert(!vm_create(&b->vm, &b->kvm, &b->host, cfg, &e), "%s", e.msg);
}

void bed_microguest(struct bed *b, struct vm_config cfg)
{
	char path[600];
	struct ob_err e;

	bed_open(b);
	snprintf(path, sizeof(path), "%s/microguest.elf", cli_build());
	cr_assert(!ob_read_file(path, ELF_MAX_BYTES, &b->kernel, &b->kernel_len, &e), "%s", e.msg);
	make(b, &cfg);
}

void bed_tiny(struct bed *b, const char *begin, const char *end, struct vm_config cfg)
{
	bed_open(b);
	b->kernel = tiny_elf(begin, end, &b->kernel_len);
	make(b, &cfg);
}

void bed_start(struct bed *b)
{
	struct ob_err e;

	cr_assert(!vm_start(b->vm, &e), "%s", e.msg);
}

void bed_wait(struct bed *b)
{
	while (atomic_load(&b->vm->state) == VM_RUNNING)
		cli_nap_ms(1);
	vm_stop(b->vm);
}

void bed_close(struct bed *b)
{
	vm_destroy(b->vm);
	io_worker_stop(b->worker);
	kvm_close(&b->kvm);
	ob_host_linux_exit(&b->host);
	free(b->kernel);
}

void bed_write(struct bed *b, uint64_t at, const void *buf, uint64_t n)
{
	cr_assert(!gmem_write(&b->vm->mem, gpa(at), buf, n));
}

void bed_read(struct bed *b, uint64_t at, void *buf, uint64_t n)
{
	cr_assert(!gmem_read(&b->vm->mem, gpa(at), buf, n));
}
