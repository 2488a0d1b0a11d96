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
 * Segments go where their physical addresses say, and nothing is relocated. That is right for a
 * vmlinux that is linked as a position-independent executable, too: its addresses are those that it
 * was linked for, and it relocates itself if it wants to.
 */
#include <elf.h>
#include <errno.h>
#include <string.h>

#include "kernel/boot_int.h"

#define XEN_ELFNOTE_PHYS32_ENTRY 18

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
	if (h->e_type == ET_REL)
		return bad(e, "an object file or kernel module (ELF of type 1): "
			      "a vmlinux is needed");
	if (h->e_type != ET_EXEC && h->e_type != ET_DYN)
		return ob_fail(e, ENOEXEC, "ELF of type %u: an executable (type 2 or 3) is needed",
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
		else if (p.p_type == PT_INTERP)
			rc = bad(e, "a program for an operating system (ELF with an interpreter): "
				    "a kernel is needed");
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

int elf_load(const struct elf_image *img, const void *file, size_t len, struct gmem *mem,
	     struct ob_err *e)
{
	/* All checks before the first write: a refused kernel leaves RAM as it was. */
	for (unsigned int i = 0; i < img->nseg; i++) {
		const struct elf_segment *s = &img->seg[i];

		OB_ASSERT(inside(s->file_off, s->file_size, len) && s->file_size <= s->mem_size);
		if (s->paddr < BOOT_LOWEST_KERNEL)
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
		int r = load_write(mem, gpa(s->paddr), (const char *)file + s->file_off,
				   s->file_size);

		if (!r)
			r = load_zero(mem, gpa(s->paddr + s->file_size),
				      s->mem_size - s->file_size);
		OB_ASSERT(!r); /* it is RAM: just looked, and regions do not go away */
	}
	return 0;
}
