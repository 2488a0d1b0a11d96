/* SPDX-License-Identifier: Apache-2.0 */
/*
 * elf.c: what is in a guest kernel's ELF file, and how it gets into RAM.
 *
 * The file comes from a person and may be anything. elf_parse trusts no field of it: each table,
 * each segment and each note is checked to lie in the file, in a form that cannot wrap (a <= len
 * and b <= len - a), and what is copied later is only what has been checked. Headers are copied out
 * before they are looked at, since nothing in a file needs to be aligned. The note that we look for
 * is Xen's PHYS32_ENTRY, the 32-bit entry of the PVH boot protocol; Linux and our own guest have
 * it.
 *
 * A page that a loader writes is memory that the host must hold. So elf_load does not write zeros
 * where there are zeros already: a large .bss costs nothing until the guest uses it.
 */
#include <elf.h>
#include <errno.h>
#include <string.h>

#include "kernel/vm.h"

#define XEN_ELFNOTE_PHYS32_ENTRY 18

/* Boot data lies below; see PVH_START_INFO_GPA and the rest. */
#define ELF_LOWEST_PADDR (1 * OB_MIB)

static int bad(struct ob_err *e, const char *what)
{
	return ob_fail(e, ENOEXEC, "%s", what);
}

static bool inside(uint64_t off, uint64_t size, uint64_t len)
{
	return off <= len && size <= len - off;
}

static int check_header(const Elf64_Ehdr *h, size_t len, struct ob_err *e)
{
	if (h->e_ident[EI_CLASS] == ELFCLASS32)
		return bad(e, "32-bit ELF: a 64-bit x86-64 kernel is needed");
	if (h->e_ident[EI_CLASS] != ELFCLASS64)
		return bad(e, "ELF of an unknown class");
	if (h->e_ident[EI_DATA] == ELFDATA2MSB)
		return bad(e, "big-endian ELF: an x86-64 kernel is needed");
	if (h->e_ident[EI_DATA] != ELFDATA2LSB)
		return bad(e, "ELF of an unknown byte order");
	if (h->e_ident[EI_VERSION] != EV_CURRENT || h->e_version != EV_CURRENT)
		return bad(e, "ELF of an unknown version");
	if (h->e_machine != EM_X86_64)
		return ob_fail(e, ENOEXEC, "ELF for another machine (%u): x86-64 is needed",
			       h->e_machine);
	if (h->e_type != ET_EXEC)
		return ob_fail(
			e, ENOEXEC,
			"ELF of type %u: an executable at fixed addresses (type 2) is needed",
			h->e_type);
	if (!h->e_phnum)
		return bad(e, "ELF without program headers");
	if (h->e_phnum == PN_XNUM)
		return bad(e, "ELF with too many program headers");
	if (h->e_phentsize != sizeof(Elf64_Phdr))
		return ob_fail(e, ENOEXEC, "ELF with program headers of %u bytes, not %zu",
			       h->e_phentsize, sizeof(Elf64_Phdr));
	if (!inside(h->e_phoff, (uint64_t)h->e_phnum * sizeof(Elf64_Phdr), len))
		return bad(e, "truncated ELF: its program headers are not in the file");
	return 0;
}

static int add_segment(struct elf_image *img, const Elf64_Phdr *p, unsigned int i, size_t len,
		       struct ob_err *e)
{
	if (!p->p_memsz && !p->p_filesz)
		return 0;
	if (img->nseg == ELF_MAX_SEGMENTS)
		return ob_fail(e, ENOEXEC, "ELF with more than %d segments to load",
			       ELF_MAX_SEGMENTS);
	if (p->p_filesz > p->p_memsz)
		return ob_fail(e, ENOEXEC, "ELF segment %u is larger in the file than in memory",
			       i);
	if (!inside(p->p_offset, p->p_filesz, len))
		return ob_fail(e, ENOEXEC, "truncated ELF: segment %u is not in the file", i);
	if (p->p_paddr + p->p_memsz < p->p_paddr)
		return ob_fail(e, ENOEXEC, "ELF segment %u wraps round the address space", i);
	for (unsigned int k = 0; k < img->nseg; k++) {
		const struct elf_segment *s = &img->seg[k];

		if (p->p_paddr < s->paddr + s->mem_size && s->paddr < p->p_paddr + p->p_memsz)
			return ob_fail(e, ENOEXEC, "ELF segment %u overlaps another", i);
	}
	img->seg[img->nseg++] = (struct elf_segment){
		.file_off = p->p_offset,
		.file_size = p->p_filesz,
		.paddr = p->p_paddr,
		.mem_size = p->p_memsz,
	};
	return 0;
}

/* Look at one note; @desc is inside the file. */
static int take_note(struct elf_image *img, const char *name, const Elf64_Nhdr *n, const char *desc,
		     struct ob_err *e)
{
	uint64_t entry = 0;

	/* Its build salt, and others: include/linux/build-salt.h. */
	img->is_linux |= n->n_namesz == 6 && !memcmp(name, "Linux", 6);
	if (n->n_type != XEN_ELFNOTE_PHYS32_ENTRY || n->n_namesz != 4 || memcmp(name, "Xen", 4))
		return 0;
	if (n->n_descsz != 4 && n->n_descsz != 8)
		return ob_fail(e, ENOEXEC, "PVH entry note of %u bytes, not 4 or 8", n->n_descsz);
	memcpy(&entry, desc, n->n_descsz);
	if (entry > UINT32_MAX)
		return bad(e, "PVH entry is not a 32-bit address");
	img->pvh_entry = (uint32_t)entry;
	img->has_pvh = true;
	return 0;
}

/* Name and description are padded to 4 bytes (8 in segments that say so,
 * such as GNU properties). */
static int read_notes(struct elf_image *img, const char *file, const Elf64_Phdr *p, unsigned int i,
		      size_t len, struct ob_err *e)
{
	uint64_t align = p->p_align == 8 ? 8 : 4, at = 0;

	if (!inside(p->p_offset, p->p_filesz, len))
		return ob_fail(e, ENOEXEC, "truncated ELF: note segment %u is not in the file", i);
	/* Padding at the end may be less than a note. */
	while (p->p_filesz - at >= sizeof(Elf64_Nhdr)) {
		const char *base = file + p->p_offset;
		uint64_t name, desc;
		Elf64_Nhdr n;
		int rc;

		memcpy(&n, base + at, sizeof(n));
		name = at + sizeof(n);
		desc = ob_align_up(name + n.n_namesz, align);
		if (!inside(name, n.n_namesz, p->p_filesz) ||
		    !inside(desc, n.n_descsz, p->p_filesz))
			return ob_fail(e, ENOEXEC, "ELF note in segment %u runs past its end", i);
		rc = take_note(img, base + name, &n, base + desc, e);
		if (rc)
			return rc;
		at = OB_MIN(ob_align_up(desc + n.n_descsz, align), p->p_filesz);
	}
	return 0;
}

static bool in_segment(const struct elf_image *img, uint64_t addr)
{
	for (unsigned int i = 0; i < img->nseg; i++)
		if (addr >= img->seg[i].paddr && addr - img->seg[i].paddr < img->seg[i].mem_size)
			return true;
	return false;
}

int elf_parse(const void *file, size_t len, struct elf_image *out, struct ob_err *e)
{
	Elf64_Ehdr h;

	*out = (struct elf_image){0};
	if (len < SELFMAG || memcmp(file, ELFMAG, SELFMAG))
		return bad(e, "not an ELF file");
	/* The class first: a 32-bit file may be shorter than a 64-bit header. */
	memset(&h, 0, sizeof(h));
	memcpy(&h, file, OB_MIN(len, sizeof(h)));
	if (len < sizeof(h) && h.e_ident[EI_CLASS] != ELFCLASS32)
		return bad(e, "truncated ELF: it ends in its header");
	if (check_header(&h, len, e))
		return -ENOEXEC;
	for (unsigned int i = 0; i < h.e_phnum; i++) {
		Elf64_Phdr p;
		int rc = 0;

		memcpy(&p, (const char *)file + h.e_phoff + i * sizeof(p), sizeof(p));
		if (p.p_type == PT_LOAD)
			rc = add_segment(out, &p, i, len, e);
		else if (p.p_type == PT_NOTE)
			rc = read_notes(out, file, &p, i, len, e);
		if (rc)
			return rc;
	}
	if (!out->nseg)
		return bad(e, "ELF with nothing to load");
	out->entry = h.e_entry;
	if (!in_segment(out, out->entry))
		return ob_fail(e, ENOEXEC, "ELF entry 0x%llx is not in a segment",
			       (unsigned long long)out->entry);
	if (out->has_pvh && !in_segment(out, out->pvh_entry))
		return ob_fail(e, ENOEXEC, "PVH entry 0x%x is not in a segment", out->pvh_entry);
	return 0;
}

/* Make [p, p + n) zero without writing pages that are. */
static void make_zero(char *p, uint64_t n)
{
	while (n) {
		uint64_t part = OB_MIN(n, OB_PAGE_SIZE - ((uintptr_t)p & OB_PAGE_MASK));
		bool zero = p[0] == 0 && !memcmp(p, p + 1, part - 1);

		if (!zero)
			memset(p, 0, part);
		p += part;
		n -= part;
	}
}

int elf_load(const struct elf_image *img, const void *file, size_t len, struct gmem *mem,
	     struct ob_err *e)
{
	/* All checks before the first write: a refused kernel leaves RAM as it was. */
	for (unsigned int i = 0; i < img->nseg; i++) {
		const struct elf_segment *s = &img->seg[i];

		OB_ASSERT(inside(s->file_off, s->file_size, len) && s->file_size <= s->mem_size);
		if (s->paddr < ELF_LOWEST_PADDR)
			return ob_fail(
				e, ENOEXEC,
				"the kernel has a segment at 0x%llx: below 1 MiB is boot data",
				(unsigned long long)s->paddr);
		if (!gmem_ptr(mem, gpa(s->paddr), s->mem_size))
			return ob_fail(e, ENOEXEC,
				       "the kernel needs memory from 0x%llx to 0x%llx, "
				       "and the guest has %llu KiB: give it more",
				       (unsigned long long)s->paddr,
				       (unsigned long long)(s->paddr + s->mem_size),
				       (unsigned long long)(mem->pages * OB_PAGE_SIZE / OB_KIB));
	}
	for (unsigned int i = 0; i < img->nseg; i++) {
		const struct elf_segment *s = &img->seg[i];
		char *to = gmem_ptr(mem, gpa(s->paddr), s->mem_size);

		memcpy(to, (const char *)file + s->file_off, s->file_size);
		make_zero(to + s->file_size, s->mem_size - s->file_size);
	}
	return 0;
}
