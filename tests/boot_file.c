/* SPDX-License-Identifier: Apache-2.0 */
/* boot_file.c: small kernels for tests (boot_file.h). */
#include "tests/boot_file.h"

#include <elf.h>
#include <string.h>

#define TEXT_OFF 4096
#define NOTE_OFF 1024

void bz_set(struct bz_file *f, unsigned int off, uint64_t v, unsigned int bytes)
{
	memcpy(f->b + off, &v, bytes);
}

void bz_make(struct bz_file *f)
{
	memset(f, 0, sizeof(*f));
	f->len = BZ_LEN;
	/* Real-mode code before the header, which nobody is to take over. */
	memset(f->b, 0xcc, BZ_SECTS);
	bz_set(f, BZ_SECTS, BZ_SETUP_SECTS, 1);
	bz_set(f, BZ_SYSSIZE, BZ_PAYLOAD / 16, 4);
	bz_set(f, BZ_FLAG, 0xaa55, 2);
	bz_set(f, 0x200, 0xeb, 1);
	bz_set(f, BZ_JUMP_LEN, 0x6a, 1);
	memcpy(f->b + BZ_MAGIC, "HdrS", 4);
	bz_set(f, BZ_VERSION, 0x20f, 2);
	bz_set(f, BZ_LOADFLAGS, 0x01, 1);
	bz_set(f, BZ_INITRD_MAX, 0x7fffffff, 4);
	bz_set(f, BZ_ALIGN, 2 * OB_MIB, 4);
	bz_set(f, BZ_RELOCATABLE, 1, 1);
	bz_set(f, BZ_XLOADFLAGS, 0x7f, 2);
	bz_set(f, BZ_CMDLINE_SIZE, 2047, 4);
	bz_set(f, BZ_PREF, 16 * OB_MIB, 8);
	bz_set(f, BZ_INIT_SIZE, 4 * OB_MIB, 4);
	for (unsigned int i = 0; i < BZ_PAYLOAD; i++)
		f->b[BZ_PAYLOAD_OFF + i] = (unsigned char)(i * 7 + i / 256 + 1);
}

void elf_file_make(struct elf_file *f, uint64_t mem_size)
{
	const Elf64_Ehdr h = {
		.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
		.e_type = ET_EXEC,
		.e_machine = EM_X86_64,
		.e_version = EV_CURRENT,
		.e_entry = EF_PADDR,
		.e_phoff = sizeof(Elf64_Ehdr),
		.e_phentsize = sizeof(Elf64_Phdr),
		.e_phnum = 2,
	};
	const Elf64_Phdr p[] = {
		{.p_type = PT_LOAD,
		 .p_offset = TEXT_OFF,
		 .p_filesz = EF_TEXT,
		 .p_memsz = mem_size,
		 .p_paddr = EF_PADDR},
		{.p_type = PT_NOTE, .p_offset = NOTE_OFF, .p_filesz = 20, .p_align = 4},
	};
	const Elf64_Nhdr n = {.n_namesz = 4, .n_descsz = 4, .n_type = 18};
	const uint32_t entry = EF_ENTRY;

	memset(f, 0, sizeof(*f));
	f->len = EF_LEN;
	memcpy(f->b, &h, sizeof(h));
	memcpy(f->b + sizeof(h), p, sizeof(p));
	memcpy(f->b + NOTE_OFF, &n, sizeof(n));
	memcpy(f->b + NOTE_OFF + sizeof(n), "Xen", 4);
	memcpy(f->b + NOTE_OFF + sizeof(n) + 4, &entry, sizeof(entry));
	for (unsigned int i = 0; i < EF_TEXT; i++)
		f->b[TEXT_OFF + i] = (unsigned char)(i * 5 + i / 256 + 1);
}
