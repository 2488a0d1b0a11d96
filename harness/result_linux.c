/* SPDX-License-Identifier: Apache-2.0 */
/* result_linux.c: which guests were booted, in a result document: the microguest, or what Linux. */
#include <limits.h>
#include <string.h>

#include "harness/result.h"

static json_t *disks_json(const struct fleet_config *c)
{
	json_t *list = json_array();
	char path[PATH_MAX];

	for (unsigned int i = 0; i < c->lx.ndisks; i++) {
		/* Of disks that each guest has for itself, the first guest's. */
		json_t *o;

		linux_disk_path(c, i, 0, path, sizeof(path));
		/* Now it is what the guest has left of it, and nobody knows what was there. */
		o = result_file_json(path, !c->lx.disk[i].rw);
		json_object_set_new(o, "writable", json_boolean(c->lx.disk[i].rw));
		json_array_append_new(list, o);
	}
	return list;
}

void result_guest_config(json_t *o, const struct fleet_config *c)
{
	const struct linux_opts *l = &c->lx;

	json_object_set_new(o, "guest", json_string(l->on ? "linux" : "microguest"));
	json_object_set_new(o, "agent",
			    json_string(!l->on	   ? "device"
					: l->agent ? "port"
						   : "none"));
	json_object_set_new(o, "vcpus", json_integer(OB_MAX(l->vcpus, 1u)));
	json_object_set_new(o, "kernel", result_file_json(c->kernel_path, true));
	json_object_set_new(o, "kernel_version",
			    *l->version ? json_string(l->version) : json_null());
	json_object_set_new(o, "initrd",
			    l->initrd ? result_file_json(l->initrd, true) : json_null());
	json_object_set_new(o, "append", l->append ? json_string(l->append) : json_null());
	json_object_set_new(o, "boot_timeout_seconds",
			    l->on ? json_integer(l->boot_timeout) : json_null());
	json_object_set_new(o, "ready", l->ready ? json_string(l->ready) : json_null());
	json_object_set_new(o, "image",
			    c->image_path || !l->on ? result_file_json(c->image_path, true)
						    : json_null());
	json_object_set_new(o, "disks", disks_json(c));
}

void table_linux(FILE *out, const struct linux_opts *l)
{
	fprintf(out, ", Linux %.*s", (int)strcspn(l->version, " "), l->version);
	if (l->vcpus > 1)
		fprintf(out, " with %u vCPUs", l->vcpus);
	if (!l->agent)
		fputs(", no agent", out);
}

json_t *result_tail_json(const struct run_guest *g)
{
	const char *p = g->console_tail;
	json_t *list;

	if (!*p)
		return json_null();
	list = json_array();
	while (*p) {
		size_t n = strcspn(p, "\n");

		json_array_append_new(list, json_stringn(p, n));
		p += n;
		p += *p == '\n';
	}
	return list;
}
