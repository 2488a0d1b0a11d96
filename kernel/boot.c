/* temporary, until h-boot */
#include "kernel/vm.h"
#include <errno.h>
int boot_parse(const void *file, size_t len, struct boot_image *out, struct ob_err *e)
{
	out->kind = BOOT_PVH;
	return elf_parse(file, len, &out->elf, e);
}
int boot_load(struct gmem *mem, const struct boot_image *img, const void *kernel, size_t kernel_len,
	      const void *initrd, size_t initrd_len, const char *cmdline,
	      const struct boot_machine *machine, struct boot_entry *out, struct ob_err *e)
{
	int r;
	(void)initrd;
	(void)initrd_len;
	(void)machine;
	if (!img->elf.has_pvh)
		return ob_fail(e, ENOEXEC,
			       "the guest has no PVH entry (an ELF note of type 18, Xen)");
	r = elf_load(&img->elf, kernel, kernel_len, mem, e);
	if (!r)
		r = pvh_write_boot_data(mem, cmdline, e);
	*out = (struct boot_entry){.rip = img->elf.pvh_entry, .arg = PVH_START_INFO_GPA};
	return r;
}
