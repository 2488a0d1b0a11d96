/* SPDX-License-Identifier: Apache-2.0 */
/* host_cell_disks.c: which disks a guest gets, and in which order. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/cell.h"

#define IMAGE 12345 /* a descriptor that nobody uses */

/* Files of its own that are disks of a Linux guest. The folder has only them. */
struct own {
	char path[LINUX_MAX_DISKS][40];
	json_t *doc;
};

static void own_new(struct own *o, unsigned int n)
{
	json_t *disks = json_array();

	for (unsigned int i = 0; i < n; i++) {
		int fd;

		strcpy(o->path[i], "/tmp/overbook-test-disk-XXXXXX");
		fd = mkstemp(o->path[i]);
		cr_assert_geq(fd, 0);
		close(fd);
		json_array_append_new(disks, json_pack("[s,b]", o->path[i], 1));
	}
	o->doc = json_pack("{s:o}", "disks", disks);
}

static void own_free(struct own *o, unsigned int n)
{
	while (n)
		unlink(o->path[--n]);
	json_decref(o->doc);
}

/* /dev/vda is the first disk that its owner has named, whether the workloads read an image or not. */
Test(cell_disks, the_image_is_behind_those_that_were_named, .timeout = 20)
{
	struct cell c = {.lx = {.on = true, .vcpus = 1}};
	struct ob_err e = {""};
	struct own o;

	for (unsigned int n = 0; n <= LINUX_MAX_DISKS; n++)
		for (int image = 0; image < 2; image++) {
			struct vm_config cfg = {0};
			struct cell_guest g = {0};

			c.image_fd = image ? IMAGE : -1;
			own_new(&o, n);
			cr_assert_eq(cell_guest_disks(&c, &g, o.doc, &cfg, &e), 0, "%s", e.msg);
			cr_expect_eq(g.ndisks, n);
			cr_expect_eq(cfg.ndisks, n + (unsigned int)image);
			for (unsigned int i = 0; i < n; i++)
				cr_expect_eq(cfg.disk[i].fd, g.disk_fd[i]);
			if (image)
				cr_expect_eq(cfg.disk[n].fd, IMAGE);
			cell_linux_guest_exit(&g);
			own_free(&o, n);
		}
}

Test(cell_disks, the_microguest_has_the_image, .timeout = 20)
{
	struct cell c = {.image_fd = IMAGE};
	struct vm_config cfg = {0};
	struct cell_guest g = {0};
	struct ob_err e;
	struct own o;

	own_new(&o, 0);
	cr_assert_eq(cell_guest_disks(&c, &g, o.doc, &cfg, &e), 0);
	cr_expect_eq(cfg.ndisks, 1);
	cr_expect_eq(cfg.disk[0].fd, IMAGE);
	own_free(&o, 0);
}
