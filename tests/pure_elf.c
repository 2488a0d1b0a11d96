/* SPDX-License-Identifier: Apache-2.0 */
/* pure_elf.c: what kernels are taken, what is refused and why, and the boot data beside them. */
#include <criterion/criterion.h>
#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/vm.h"
#include "tests/fake_host.h"

#define FILE_LEN 8192
#define TEXT_OFF 4096
#define NOTE_OFF 1024

/* A small whole kernel: text at 1 MiB, a PVH note. Tests break one thing of it. */
struct file {
	union {
		unsigned char b[FILE_LEN];
		Elf64_Ehdr h;
	};
	size_t len;
};

static Elf64_Phdr *phdr(struct file *f, unsigned int i)
{
	return (Elf64_Phdr *)(void *)(f->b + sizeof(Elf64_Ehdr) + i * sizeof(Elf64_Phdr));
}

static void put_note(struct file *f, uint32_t type, uint32_t descsz, uint64_t desc)
{
	Elf64_Nhdr n = {.n_namesz = 4, .n_descsz = descsz, .n_type = type};

	memcpy(f->b + NOTE_OFF, &n, sizeof(n));
	memcpy(f->b + NOTE_OFF + sizeof(n), "Xen", 4);
	memcpy(f->b + NOTE_OFF + sizeof(n) + 4, &desc, sizeof(desc));
	phdr(f, 1)->p_filesz = sizeof(n) + 4 + ob_align_up(descsz, 4);
}

static void make(struct file *f)
{
	memset(f, 0, sizeof(*f));
	f->len = FILE_LEN;
	memcpy(f->h.e_ident, ELFMAG, SELFMAG);
	f->h.e_ident[EI_CLASS] = ELFCLASS64;
	f->h.e_ident[EI_DATA] = ELFDATA2LSB;
	f->h.e_ident[EI_VERSION] = EV_CURRENT;
	f->h.e_type = ET_EXEC;
	f->h.e_machine = EM_X86_64;
	f->h.e_version = EV_CURRENT;
	f->h.e_entry = OB_MIB + 16;
	f->h.e_phoff = sizeof(Elf64_Ehdr);
	f->h.e_phentsize = sizeof(Elf64_Phdr);
	f->h.e_phnum = 2;
	*phdr(f, 0) = (Elf64_Phdr){
		.p_type = PT_LOAD,
		.p_offset = TEXT_OFF,
		.p_filesz = 100,
		.p_memsz = 10000,
		.p_vaddr = OB_MIB,
		.p_paddr = OB_MIB,
	};
	*phdr(f, 1) = (Elf64_Phdr){.p_type = PT_NOTE, .p_offset = NOTE_OFF, .p_align = 4};
	put_note(f, 18, 4, OB_MIB + 32);
	for (int i = 0; i < 100; i++)
		f->b[TEXT_OFF + i] = (unsigned char)(i + 1);
}

static void refused(const struct file *f, const char *why)
{
	struct elf_image img;
	struct ob_err e = {"nothing said"};

	cr_assert_eq(elf_parse(f->b, f->len, &img, &e), -ENOEXEC, "should say: %s", why);
	cr_assert_not_null(strstr(e.msg, why), "says \"%s\", should say \"%s\"", e.msg, why);
	cr_assert_null(strchr(e.msg, '\n'));
}

Test(elf, a_kernel_is_understood)
{
	struct file f;
	struct elf_image img;

	make(&f);
	cr_assert_eq(elf_parse(f.b, f.len, &img, NULL), 0);
	cr_assert_eq(img.nseg, 1);
	cr_assert_eq(img.entry, OB_MIB + 16);
	cr_assert(img.has_pvh && img.pvh_entry == OB_MIB + 32);
	put_note(&f, 18, 8, OB_MIB + 48);
	cr_assert_eq(elf_parse(f.b, f.len, &img, NULL), 0);
	cr_assert_eq(img.pvh_entry, OB_MIB + 48, "64-bit kernels have an 8-byte note");
	put_note(&f, 17, 4, OB_MIB + 48);
	cr_assert_eq(elf_parse(f.b, f.len, &img, NULL), 0);
	cr_assert(!img.has_pvh, "another note is not it");
	f.h.e_phnum = 1;
	cr_assert_eq(elf_parse(f.b, f.len, &img, NULL), 0);
	cr_assert(!img.has_pvh);
	f.h.e_type = ET_DYN;
	cr_assert_eq(elf_parse(f.b, f.len, &img, NULL), 0, "a kernel that could run elsewhere");
}

Test(elf, the_note_is_found_behind_others)
{
	struct file f;
	struct elf_image img;
	Elf64_Nhdr n = {.n_namesz = 5, .n_descsz = 3, .n_type = 18};
	Elf64_Nhdr x = {.n_namesz = 4, .n_descsz = 4, .n_type = 18};
	uint32_t entry = OB_MIB + 64;
	unsigned char *p;

	make(&f);
	p = f.b + NOTE_OFF;
	memcpy(p, &n, 12);
	memcpy(p + 12, "XenX", 5); /* padded to 8, then 3 padded to 4 */
	memcpy(p + 24, &x, 12);
	memcpy(p + 36, "Xen", 4);
	memcpy(p + 40, &entry, 4);
	phdr(&f, 1)->p_filesz = 44;
	cr_assert_eq(elf_parse(f.b, f.len, &img, NULL), 0);
	cr_assert(img.has_pvh && img.pvh_entry == entry);
}

Test(elf, each_fault_has_its_line)
{
	struct file f;

	make(&f);
	f.b[0] = 'X';
	refused(&f, "not an ELF file");
	make(&f);
	f.len = 3;
	refused(&f, "not an ELF file");
	make(&f);
	f.len = 63;
	refused(&f, "truncated ELF: it ends in its header");
	make(&f);
	f.h.e_ident[EI_CLASS] = ELFCLASS32;
	refused(&f, "32-bit ELF");
	f.len = 52;
	refused(&f, "32-bit ELF");
	make(&f);
	f.h.e_ident[EI_CLASS] = 9;
	refused(&f, "unknown class");
	make(&f);
	f.h.e_ident[EI_DATA] = ELFDATA2MSB;
	refused(&f, "big-endian ELF");
	make(&f);
	f.h.e_ident[EI_DATA] = 0;
	refused(&f, "unknown byte order");
	make(&f);
	f.h.e_version = 2;
	refused(&f, "unknown version");
	make(&f);
	f.h.e_machine = EM_AARCH64;
	refused(&f, "another machine (183)");
	make(&f);
	f.h.e_type = ET_CORE;
	refused(&f, "ELF of type 4");
	make(&f);
	f.h.e_type = ET_REL;
	refused(&f, "an object file or kernel module (ELF of type 1)");
	make(&f);
	phdr(&f, 1)->p_type = PT_INTERP;
	refused(&f, "a program for an operating system");
	make(&f);
	f.h.e_phnum = 0;
	refused(&f, "without program headers");
	make(&f);
	f.h.e_phnum = PN_XNUM;
	refused(&f, "too many program headers");
	make(&f);
	f.h.e_phentsize = 32;
	refused(&f, "program headers of 32 bytes");
	make(&f);
	f.h.e_phoff = FILE_LEN - 100;
	refused(&f, "truncated ELF: its program headers");
	make(&f);
	f.h.e_phoff = UINT64_MAX - 10;
	refused(&f, "truncated ELF: its program headers");
	make(&f);
	phdr(&f, 0)->p_type = PT_NULL;
	refused(&f, "nothing to load");
	make(&f);
	f.h.e_entry = OB_MIB - 1;
	refused(&f, "ELF entry 0xfffff is not in a segment");
	make(&f);
	f.h.e_entry = OB_MIB + 10000;
	refused(&f, "is not in a segment");
}

Test(elf, broken_segments_are_refused)
{
	struct file f;

	make(&f);
	phdr(&f, 0)->p_filesz = 20000;
	refused(&f, "segment 0 is larger in the file than in memory");
	make(&f);
	phdr(&f, 0)->p_offset = FILE_LEN - 99;
	refused(&f, "truncated ELF: segment 0");
	make(&f);
	phdr(&f, 0)->p_offset = UINT64_MAX - 50;
	refused(&f, "truncated ELF: segment 0");
	make(&f);
	phdr(&f, 0)->p_paddr = UINT64_MAX - 5000;
	refused(&f, "segment 0 wraps");
	make(&f);
	*phdr(&f, 1) = *phdr(&f, 0);
	phdr(&f, 1)->p_paddr += 9999;
	refused(&f, "segment 1 overlaps another");
	make(&f);
	f.h.e_phnum = ELF_MAX_SEGMENTS + 1;
	for (unsigned int i = 0; i <= ELF_MAX_SEGMENTS; i++) {
		*phdr(&f, i) = *phdr(&f, 0);
		phdr(&f, i)->p_paddr = OB_MIB + i * 10000;
	}
	refused(&f, "more than 16 segments");
	f.h.e_phnum = ELF_MAX_SEGMENTS;
	cr_assert_eq(elf_parse(f.b, f.len, &(struct elf_image){0}, NULL), 0);
}

Test(elf, broken_notes_are_refused)
{
	struct file f;
	uint32_t big = UINT32_MAX;

	make(&f);
	put_note(&f, 18, 6, OB_MIB);
	refused(&f, "PVH entry note of 6 bytes");
	make(&f);
	put_note(&f, 18, 8, 1ULL << 32);
	refused(&f, "not a 32-bit address");
	make(&f);
	put_note(&f, 18, 4, 0x1000);
	refused(&f, "PVH entry 0x1000 is not in a segment");
	make(&f);
	memcpy(f.b + NOTE_OFF, &big, 4);
	refused(&f, "note in segment 1 runs past its end");
	make(&f);
	memcpy(f.b + NOTE_OFF + 4, &big, 4);
	refused(&f, "note in segment 1 runs past its end");
	make(&f);
	phdr(&f, 1)->p_offset = FILE_LEN - 8;
	refused(&f, "truncated ELF: note segment 1");
	make(&f);
	phdr(&f, 1)->p_filesz = UINT64_MAX;
	refused(&f, "truncated ELF: note segment 1");
}

/* Any prefix of a good file is refused in one line, or is whole as far as it matters. */
Test(elf, every_truncation_is_handled)
{
	struct file f;
	struct elf_image img;

	make(&f);
	for (size_t len = 0; len <= FILE_LEN; len++) {
		unsigned char *copy = malloc(len ? len : 1);
		int rc;

		memcpy(copy, f.b, len);
		rc = elf_parse(copy, len, &img, NULL);
		cr_assert_eq(rc, len < TEXT_OFF + 100 ? -ENOEXEC : 0, "at %zu", len);
		free(copy);
	}
}

/* --- loading ---------------------------------------------------------------------------------- */

Test(elf, segments_are_loaded_and_the_rest_is_zero)
{
	struct ob_host *h = fake_host_new();
	struct elf_image img;
	struct gmem gm;
	struct file f;
	unsigned char *p;

	make(&f);
	cr_assert_eq(gmem_init(&gm, h, 2 * OB_MIB, "t"), 0);
	memset(gmem_ptr(&gm, gpa(OB_MIB), 20000), 0xee, 20000);
	cr_assert_eq(elf_parse(f.b, f.len, &img, NULL), 0);
	cr_assert_eq(elf_load(&img, f.b, f.len, &gm, NULL), 0);
	p = gmem_ptr(&gm, gpa(OB_MIB), 20000);
	cr_assert_arr_eq(p, f.b + TEXT_OFF, 100);
	for (int i = 100; i < 20000; i++)
		cr_assert_eq(p[i], i < 10000 ? 0 : 0xee, "at %d", i);
	gmem_exit(&gm);
	fake_host_free(h);
}

Test(elf, zeros_cost_no_memory)
{
	struct ob_host *h = fake_host_new();
	struct elf_image img;
	struct gmem gm;
	struct file f;

	make(&f);
	phdr(&f, 0)->p_memsz = 512 * OB_KIB;
	cr_assert_eq(gmem_init(&gm, h, 2 * OB_MIB, "t"), 0);
	cr_assert_eq(elf_parse(f.b, f.len, &img, NULL), 0);
	cr_assert_eq(elf_load(&img, f.b, f.len, &gm, NULL), 0);
	cr_assert_eq(fake_host_private_pages(h), 1);
	gmem_exit(&gm);
	fake_host_free(h);
}

Test(elf, what_does_not_fit_is_refused_and_nothing_written)
{
	struct ob_host *h = fake_host_new();
	struct elf_image img;
	struct ob_err e;
	struct gmem gm;
	struct file f;

	make(&f);
	cr_assert_eq(gmem_init(&gm, h, OB_MIB + 8192, "t"), 0);
	cr_assert_eq(elf_parse(f.b, f.len, &img, NULL), 0);
	cr_assert_eq(elf_load(&img, f.b, f.len, &gm, &e), -ENOEXEC);
	cr_assert_not_null(strstr(e.msg, "needs memory from 0x100000 to 0x102710"));
	cr_assert_eq(fake_host_private_pages(h), 0);
	img.seg[0].paddr = 0x7000;
	cr_assert_eq(elf_load(&img, f.b, f.len, &gm, &e), -ENOEXEC);
	cr_assert_not_null(strstr(e.msg, "below 1 MiB"));
	gmem_exit(&gm);
	fake_host_free(h);
}

Test(pvh, boot_data_describes_the_machine)
{
	struct ob_host *h = fake_host_new();
	struct gmem gm;
	uint32_t si[14], map[6];
	char cmd[16];

	cr_assert_eq(gmem_init(&gm, h, 2 * OB_MIB, "t"), 0);
	cr_assert_eq(pvh_write_boot_data(&gm, "seed=1", NULL), 0);
	cr_assert_eq(gmem_read(&gm, gpa(PVH_START_INFO_GPA), si, sizeof(si)), 0);
	cr_assert_eq(si[0], 0x336ec578);
	cr_assert_eq(si[1], 1);
	cr_assert_eq(si[6], PVH_CMDLINE_GPA);
	cr_assert_eq(si[10], PVH_MEMMAP_GPA);
	cr_assert_eq(si[12], 1);
	cr_assert_eq(gmem_read(&gm, gpa(PVH_MEMMAP_GPA), map, sizeof(map)), 0);
	cr_assert_eq(map[0], 0);
	cr_assert_eq(map[2], 2 * OB_MIB);
	cr_assert_eq(map[4], 1);
	cr_assert_eq(gmem_read(&gm, gpa(PVH_CMDLINE_GPA), cmd, sizeof(cmd)), 0);
	cr_assert_str_eq(cmd, "seed=1");
	gmem_exit(&gm);
	fake_host_free(h);
}

Test(pvh, the_command_line_is_limited)
{
	struct ob_host *h = fake_host_new();
	char line[PVH_CMDLINE_MAX + 1];
	struct ob_err e;
	struct gmem gm;

	memset(line, 'c', sizeof(line));
	line[PVH_CMDLINE_MAX] = '\0';
	cr_assert_eq(gmem_init(&gm, h, 2 * OB_MIB, "t"), 0);
	cr_assert_eq(pvh_write_boot_data(&gm, line, &e), -E2BIG);
	cr_assert_not_null(strstr(e.msg, "2048 bytes"));
	line[PVH_CMDLINE_MAX - 1] = '\0';
	cr_assert_eq(pvh_write_boot_data(&gm, line, &e), 0);
	gmem_exit(&gm);
	cr_assert_eq(gmem_init(&gm, h, 64 * OB_KIB, "t"), 0);
	cr_assert_eq(pvh_write_boot_data(&gm, "x", &e), -EFAULT);
	cr_assert_not_null(strstr(e.msg, "too small"));
	gmem_exit(&gm);
	fake_host_free(h);
}
