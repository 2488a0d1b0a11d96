/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cmd_doctor.c: the verb doctor: what this host offers, what that is needed for, and what to do
 * about each lack. Exit status 0 when the main job (boot guests, merge, measure) can run, 1 when
 * not.
 */
#include <stdarg.h>
#include <string.h>

#include "harness/doctor.h"
#include "harness/result.h"

struct doctor_check *doctor_add(struct doctor *d, const char *name, enum doctor_state state,
				const char *need, const char *advice, const char *fmt, ...)
{
	struct doctor_check *c;
	va_list ap;

	OB_ASSERT(d->n < DOCTOR_MAX);
	c = &d->check[d->n++];
	*c = (struct doctor_check){.state = state, .need = need, .advice = advice};
	snprintf(c->name, sizeof(c->name), "%s", name);
	va_start(ap, fmt);
	vsnprintf(c->found, sizeof(c->found), fmt, ap);
	va_end(ap);
	return c;
}

bool doctor_ready(const struct doctor *d)
{
	for (unsigned int i = 0; i < d->n; i++)
		if (d->check[i].required && d->check[i].state == DOCTOR_LACK)
			return false;
	return true;
}

static const char *state_name(enum doctor_state s)
{
	return s == DOCTOR_OK ? "ok" : s == DOCTOR_LACK ? "lack" : "note";
}

json_t *doctor_json(const struct doctor *d)
{
	json_t *o = json_object(), *list = json_array();

	for (unsigned int i = 0; i < d->n; i++) {
		const struct doctor_check *c = &d->check[i];
		json_t *j = json_object();

		json_object_set_new(j, "check", json_string(c->name));
		json_object_set_new(j, "state", json_string(state_name(c->state)));
		json_object_set_new(j, "required", json_boolean(c->required));
		json_object_set_new(j, "found", json_string(c->found));
		json_object_set_new(j, "needed_for", json_string(c->need));
		json_object_set_new(j, "advice",
				    json_string(c->state == DOCTOR_OK ? "" : c->advice));
		json_array_append_new(list, j);
	}
	json_object_set_new(o, "schema", json_string(DOCTOR_SCHEMA));
	json_object_set_new(o, "ready", json_boolean(doctor_ready(d)));
	json_object_set_new(o, "git", result_git_json());
	json_object_set_new(o, "host", result_host_json());
	json_object_set_new(o, "checks", list);
	return o;
}

void doctor_print(FILE *out, const struct doctor *d)
{
	for (unsigned int i = 0; i < d->n; i++) {
		const struct doctor_check *c = &d->check[i];

		if (c->state == DOCTOR_OK) {
			fprintf(out, "ok    %-26s %s (%s)\n", c->name, c->found, c->need);
			continue;
		}
		fprintf(out, "%-4s  %-26s %s\n%33s%sfor: %s\n", state_name(c->state), c->name,
			c->found, "", c->required ? "REQUIRED " : "", c->need);
		if (*c->advice)
			fprintf(out, "%33sdo: %s\n", "", c->advice);
	}
	fprintf(out, "\n%s\n",
		doctor_ready(d) ? "This host can run the main job: overbook compare"
				: "This host cannot run guests yet: see what is REQUIRED above");
}

int cmd_doctor(int argc, char **argv)
{
	struct doctor d = {0};
	struct ob_err e = {""};
	bool json = false;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--json") == 0) {
			json = true;
		} else if (strcmp(argv[i], "--help") == 0) {
			puts("Usage: overbook doctor [--json]\n"
			     "Says what this host offers, what that is needed for, and what to do "
			     "about what it lacks.\n"
			     "Exit status 0 when guests can be booted and merged here, 1 when "
			     "not.");
			return OB_EXIT_OK;
		} else {
			ob_warn("doctor: unknown word '%.60s'; it takes --json and no more",
				argv[i]);
			return OB_EXIT_USAGE;
		}
	}
	doctor_kvm(&d, "/dev/kvm");
	doctor_memory(&d);
	doctor_settings(&d);
	if (json) {
		json_t *doc = doctor_json(&d);
		int ret = result_write(doc, "-", &e);

		json_decref(doc);
		if (ret) {
			ob_warn("%s", e.msg);
			return OB_EXIT_FAILED;
		}
	} else {
		doctor_print(stdout, &d);
	}
	return doctor_ready(&d) ? OB_EXIT_OK : OB_EXIT_FAILED;
}
