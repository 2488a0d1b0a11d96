/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host_opts.c: a configuration held against files and a host: a guest that is none, an image cut
 * short, a device that is not there, limits of cgroups, places that cannot be written.
 */
#include <criterion/criterion.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness/opts.h"
#include "harness/result.h"
#include "workloads/image.h"

struct place {
	char dir[64];
	char path[160];
};

static void place_init(struct place *p)
{
	strcpy(p->dir, "/tmp/ob-opts-XXXXXX");
	cr_assert(mkdtemp(p->dir));
}

static const char *place_at(struct place *p, const char *name)
{
	snprintf(p->path, sizeof(p->path), "%s/%s", p->dir, name);
	return p->path;
}

static void place_exit(struct place *p)
{
	char cmd[128];

	snprintf(cmd, sizeof(cmd), "rm -rf '%s'", p->dir);
	cr_assert_eq(system(cmd), 0);
}

/* A file of @len bytes that begins with @head. */
static const char *put(struct place *p, const char *name, const void *head, size_t n, off_t len)
{
	const char *path = place_at(p, name);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	cr_assert_geq(fd, 0);
	cr_assert_eq(write(fd, head, n), (ssize_t)n);
	cr_assert_eq(ftruncate(fd, len), 0);
	close(fd);
	return path;
}

static struct image_super good_super(void)
{
	return (struct image_super){
		.magic = IMAGE_MAGIC,
		.version = IMAGE_VERSION,
		.total_pages = 20,
		.nfiles = 1,
		.files_page = 1,
		.sums_page = 2,
		.data_page = 3,
		.data_pages = 17,
	};
}

Test(opts_host, image)
{
	struct image_super s = good_super();
	struct place p;
	struct ob_err e = {""};

	place_init(&p);
	cr_expect_eq(opts_check_image(put(&p, "i", &s, sizeof(s), 20 * 4096), &e), 0, "%s", e.msg);
	cr_expect_neq(opts_check_image(put(&p, "i", &s, sizeof(s), 20 * 4096 - 1), &e), 0);
	cr_expect(strstr(e.msg, "too short"), "%s", e.msg);
	cr_expect_neq(opts_check_image(put(&p, "i", &s, 16, 16), &e), 0);
	cr_expect_neq(opts_check_image(put(&p, "i", "", 0, 0), &e), 0);
	cr_expect_neq(opts_check_image(put(&p, "i", "not an image", 12, 20 * 4096), &e), 0);
	cr_expect(strstr(e.msg, "not an image"), "%s", e.msg);
	s.total_pages = UINT64_MAX; /* times 4096 it would wrap */
	cr_expect_neq(opts_check_image(put(&p, "i", &s, sizeof(s), 20 * 4096), &e), 0);
	s = good_super();
	s.data_pages = UINT64_MAX;
	cr_expect_neq(opts_check_image(put(&p, "i", &s, sizeof(s), 20 * 4096), &e), 0);
	s = good_super();
	s.version++;
	cr_expect_neq(opts_check_image(put(&p, "i", &s, sizeof(s), 20 * 4096), &e), 0);
	cr_expect(strstr(e.msg, "version"), "%s", e.msg);
	cr_expect_eq(opts_check_image(place_at(&p, "none"), &e), -ENOENT);
	cr_expect_neq(opts_check_image(p.dir, &e), 0);
	place_exit(&p);
}

/* The least guest that can be booted: one segment and the note that says where PVH enters. */
static const char *put_guest(struct place *p)
{
	struct {
		Elf64_Ehdr h;
		Elf64_Phdr seg[2];
		Elf64_Nhdr note;
		char name[4];
		uint32_t entry;
		char text[64];
	} g = {
		.h = {.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB,
				  EV_CURRENT},
		      .e_type = ET_EXEC,
		      .e_machine = EM_X86_64,
		      .e_version = EV_CURRENT,
		      .e_entry = 0x100000,
		      .e_phoff = sizeof(Elf64_Ehdr),
		      .e_ehsize = sizeof(Elf64_Ehdr),
		      .e_phentsize = sizeof(Elf64_Phdr),
		      .e_phnum = 2},
		.note = {.n_namesz = 4, .n_descsz = 4, .n_type = 18}, /* XEN_ELFNOTE_PHYS32_ENTRY */
		.name = "Xen",
		.entry = 0x100000,
	};

	g.seg[0] = (Elf64_Phdr){.p_type = PT_LOAD,
				.p_flags = PF_R | PF_X,
				.p_offset = offsetof(__typeof__(g), text),
				.p_vaddr = 0x100000,
				.p_paddr = 0x100000,
				.p_filesz = sizeof(g.text),
				.p_memsz = sizeof(g.text)};
	g.seg[1] = (Elf64_Phdr){.p_type = PT_NOTE,
				.p_offset = offsetof(__typeof__(g), note),
				.p_filesz = sizeof(g.note) + 8,
				.p_align = 4};
	return put(p, "guest", &g, sizeof(g), sizeof(g));
}

Test(opts_host, guest)
{
	static const char elf[64] = "\177ELF\2\1\1";
	struct place p;
	struct ob_err e = {""};

	place_init(&p);
	cr_expect_eq(opts_check_kernel(put_guest(&p), &e), 0, "%s", e.msg);
	cr_expect_eq(opts_check_kernel(place_at(&p, "none"), &e), -ENOENT);
	cr_expect(strstr(e.msg, "make"), "what to do: %s", e.msg);
	cr_expect_neq(opts_check_kernel(p.dir, &e), 0);
	cr_expect_neq(opts_check_kernel(put(&p, "k", "", 0, 0), &e), 0);
	cr_expect(strstr(e.msg, "empty"), "%s", e.msg);
	cr_expect_neq(opts_check_kernel(put(&p, "k", "#!/bin/sh\n", 10, 4096), &e), 0);
	cr_expect_neq(opts_check_kernel(put(&p, "k", elf, sizeof(elf), 64), &e), 0);
	cr_expect_neq(opts_check_kernel(put(&p, "k", elf, 7, 7), &e), 0);
	cr_expect(strstr(e.msg, p.path) && !strchr(e.msg, '\n'), "names the file: %s", e.msg);
	/* A pipe must not hang the check. */
	cr_assert_eq(mkfifo(place_at(&p, "fifo"), 0600), 0);
	cr_expect_neq(opts_check_kernel(p.path, &e), 0);
	place_exit(&p);
}

Test(opts_host, kvm_and_ksm)
{
	struct place p;
	struct ob_err e = {""};

	place_init(&p);
	cr_expect_neq(opts_check_kvm(place_at(&p, "kvm"), &e), 0);
	cr_expect(strstr(e.msg, "load the kvm module"), "%s", e.msg);
	put(&p, "kvm", "x", 1, 1);
	cr_expect_neq(opts_check_kvm(p.path, &e), 0, "a plain file is no KVM");
	cr_expect_eq(opts_check_ksm(place_at(&p, "ksm"), &e), -ENOENT);
	cr_assert_eq(mkdir(p.path, 0700), 0);
	put(&p, "ksm/run", "0\n", 2, 2);
	cr_expect_eq(opts_check_ksm(place_at(&p, "ksm"), &e), 0, "%s", e.msg);
	place_exit(&p);
}

/* The default list loses what cannot be driven here; a list that was named is refused. */
Test(opts_host, kernel_left_out)
{
	const struct ksm_engine_ops *off = ksm_engine_find("off"),
				    *kernel = ksm_engine_find("kernel");
	struct fleet_config c = {
		.guests = 1, .mem_bytes = OPTS_MIN_MEM, .sharing = {off, kernel}, .nsharing = 2};
	struct opts_given given = {.sharing = true};
	struct opts_host h = {.kvm_path = "/dev/kvm",
			      .mem_total = OB_GIB,
			      .mem_available = OB_GIB,
			      .mem_limit = UINT64_MAX};
	struct image_super s = good_super();
	struct ob_err e = {""};
	struct place p;
	char note[400], image[160], ksm[160], guest[160];
	int ret;

	if (access("/dev/kvm", R_OK | W_OK) != 0)
		cr_skip_test("no /dev/kvm that we may open");
	place_init(&p);
	strcpy(image, put(&p, "i", &s, sizeof(s), 20 * 4096));
	strcpy(ksm, place_at(&p, "no-ksm"));
	strcpy(guest, put_guest(&p));
	c.kernel_path = guest;
	c.image_path = image;
	h.ksm_dir = ksm;
	ret = opts_check(&c, &given, &h, note, sizeof(note), &e);
	cr_expect_neq(ret, 0);
	cr_expect(strstr(e.msg, "--sharing kernel"), "%s", e.msg);
	given.sharing = false;
	ret = opts_check(&c, &given, &h, note, sizeof(note), &e);
	cr_expect_eq(ret, 0, "%s", e.msg);
	cr_expect_eq(c.nsharing, 1);
	cr_expect_eq(c.sharing[0], off);
	cr_expect(note[0]);
	place_exit(&p);
}

Test(opts_host, outputs)
{
	struct place p;
	struct ob_err e = {""};

	place_init(&p);
	cr_expect_eq(opts_check_output("-", &e), 0);
	cr_expect_eq(opts_check_output("/dev/null", &e), 0);
	cr_expect_eq(opts_check_output(place_at(&p, "new.json"), &e), 0);
	cr_expect_neq(access(p.path, F_OK), 0, "checking leaves nothing behind");
	cr_expect_neq(opts_check_output(place_at(&p, "no/new.json"), &e), 0);
	cr_expect_neq(opts_check_output(p.dir, &e), 0);
	cr_expect_eq(opts_check_out_dir(place_at(&p, "a/b/c"), &e), 0);
	cr_expect_neq(access(place_at(&p, "a"), F_OK), 0, "checking leaves nothing behind");
	put(&p, "file", "", 0, 0);
	cr_expect_neq(opts_check_out_dir(place_at(&p, "file/x"), &e), 0);
	cr_expect_neq(opts_check_out_dir(place_at(&p, "file"), &e), 0);
	cr_expect_eq(result_mkdirs(place_at(&p, "a/b/c"), &e), 0);
	cr_expect_eq(result_mkdirs(p.path, &e), 0, "twice is no error");
	cr_expect_neq(result_mkdirs(place_at(&p, "file/x"), &e), 0);
	cr_expect_eq(opts_check_out_dir(place_at(&p, "a/b/c"), &e), 0, "there, and empty");
	put(&p, "a/b/c/result.json", "{}", 2, 2);
	cr_expect_eq(opts_check_out_dir(place_at(&p, "a/b/c"), &e), -EEXIST);
	cr_expect(strstr(e.msg, "holds a result already, name another"), "%s", e.msg);
	cr_expect_eq(opts_check_out_dir(place_at(&p, "a/b"), &e), 0);
	place_exit(&p);
}

Test(opts_host, who_may_not_open_the_device)
{
	char buf[KVM_ADVICE_MAX];
	struct place p;
	struct group *g;
	gid_t gid = getegid();
	const char *path;

	place_init(&p);
	path = put(&p, "kvm", "", 0, 0);
	if (gid == 0) /* root may give it to any group */
		gid = 1;
	g = getgrgid(gid);
	if (!g || chown(path, (uid_t)-1, gid) != 0) {
		place_exit(&p);
		cr_skip_test("no group with a name, other than root's, to give a file to");
	}
	cr_assert_eq(chmod(path, 0660), 0);
	kvm_access_advice(path, buf, sizeof(buf));
	cr_expect(strstr(buf, "usermod -aG ") && strstr(buf, g->gr_name), "%s", buf);
	cr_assert_eq(chmod(path, 0640), 0);
	kvm_access_advice(path, buf, sizeof(buf));
	cr_expect(strstr(buf, "setfacl -m u:$USER:rw ") && strstr(buf, path),
		  "the group may not either: %s", buf);
	if (chown(path, (uid_t)-1, 0) == 0) {
		cr_assert_eq(chmod(path, 0660), 0);
		kvm_access_advice(path, buf, sizeof(buf));
		cr_expect(strstr(buf, "setfacl"), "nobody is to join root's group: %s", buf);
	}
	place_exit(&p);
}

/* A tree that looks like /proc and /sys/fs/cgroup. */
static void fake_file(struct place *p, const char *name, const char *text)
{
	char path[200];
	struct ob_err e = {""};

	snprintf(path, sizeof(path), "%s", place_at(p, name));
	*strrchr(path, '/') = '\0';
	cr_assert_eq(result_mkdirs(path, &e), 0, "%s", e.msg);
	put(p, name, text, strlen(text), (off_t)strlen(text));
}

Test(opts_host, limits)
{
	struct place p;
	uint64_t v = 0;

	place_init(&p);
	cr_expect_eq(hostmem_cgroup_limit(p.dir), UINT64_MAX, "no /proc, no limit");
	cr_expect_neq(hostmem_meminfo(p.dir, "MemTotal", &v), 0);
	fake_file(&p, "proc/meminfo", "MemTotal:  2048 kB\nMem: 7 kB\nSwapTotal:  0 kB\n");
	cr_expect_eq(hostmem_meminfo(p.dir, "MemTotal", &v), 0);
	cr_expect_eq(v, 2 * OB_MIB);
	cr_expect_eq(hostmem_meminfo(p.dir, "SwapTotal", &v), 0);
	cr_expect_eq(v, 0);
	cr_expect_eq(hostmem_meminfo(p.dir, "Swap", &v), -ENOENT);

	fake_file(&p, "proc/self/cgroup", "0::/a/b\n");
	fake_file(&p, "sys/fs/cgroup/a/b/memory.max", "max\n");
	cr_expect_eq(hostmem_cgroup_limit(p.dir), UINT64_MAX);
	fake_file(&p, "sys/fs/cgroup/a/memory.max", "1048576\n");
	cr_expect_eq(hostmem_cgroup_limit(p.dir), OB_MIB, "the limit of a group above binds");
	fake_file(&p, "sys/fs/cgroup/a/b/memory.max", "4096\n");
	cr_expect_eq(hostmem_cgroup_limit(p.dir), 4096);

	cr_expect_eq(hostmem_cgroup_room(p.dir), 4096, "usage is not told: all of it");
	fake_file(&p, "sys/fs/cgroup/a/b/memory.current", "3000\n");
	cr_expect_eq(hostmem_cgroup_room(p.dir), 1096);
	fake_file(&p, "sys/fs/cgroup/a/b/memory.stat", "anon 5\ninactive_file 1000\n");
	cr_expect_eq(hostmem_cgroup_room(p.dir), 2096, "cached files go first");
	fake_file(&p, "sys/fs/cgroup/a/memory.current", "1048000\n");
	cr_expect_eq(hostmem_cgroup_room(p.dir), 576, "the group above is tighter");
	fake_file(&p, "sys/fs/cgroup/a/memory.current", "2000000\n");
	cr_expect_eq(hostmem_cgroup_room(p.dir), 0);

	fake_file(&p, "proc/self/cgroup", "5:cpu:/x\n4:memory:/m\n0::/\n");
	fake_file(&p, "sys/fs/cgroup/memory/m/memory.limit_in_bytes", "8192\n");
	fake_file(&p, "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
	cr_expect_eq(hostmem_cgroup_limit(p.dir), 8192, "version 1");
	fake_file(&p, "sys/fs/cgroup/memory/m/memory.usage_in_bytes", "8000\n");
	fake_file(&p, "sys/fs/cgroup/memory/m/memory.stat",
		  "inactive_file 1\ntotal_inactive_file 50\n");
	cr_expect_eq(hostmem_cgroup_room(p.dir), 242);
	fake_file(&p, "sys/fs/cgroup/memory/m/memory.limit_in_bytes", "9223372036854771712\n");
	cr_expect_eq(hostmem_cgroup_limit(p.dir), UINT64_MAX, "version 1 without a limit");
	place_exit(&p);
}
