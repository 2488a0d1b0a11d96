/* SPDX-License-Identifier: Apache-2.0 */
/*
 * doctor.h: private to harness/: what `overbook doctor` finds. Each check tries the thing itself
 * where that can be done without a trace; a version number or a capability bit is asked only where
 * trying would change something.
 */
#ifndef OVERBOOK_HARNESS_DOCTOR_H
#define OVERBOOK_HARNESS_DOCTOR_H

#include "harness/harness.h"

#define DOCTOR_SCHEMA "overbook.doctor/1"
#define DOCTOR_MAX    48

enum doctor_state {
	DOCTOR_OK,
	DOCTOR_LACK, /* something is missing: advice says what to do */
	DOCTOR_NOTE, /* works, with a remark; or good to know */
};

struct doctor_check {
	char name[32];
	enum doctor_state state;
	bool required; /* the main job cannot run without it */
	char found[160];
	const char *need;   /* what it is needed for */
	const char *advice; /* what to do about it; "" when nothing */
};

struct doctor {
	struct doctor_check check[DOCTOR_MAX];
	char kvm_advice[KVM_ADVICE_MAX]; /* the one advice that is made and not a constant */
	unsigned int n;
};

/* Add a check; the rest of the arguments say what was found. Returns it, to be made required. */
struct doctor_check *doctor_add(struct doctor *d, const char *name, enum doctor_state state,
				const char *need, const char *advice, const char *fmt, ...)
	__attribute__((format(printf, 6, 7)));
/* Is every required check fulfilled? */
bool doctor_ready(const struct doctor *d);
json_t *doctor_json(const struct doctor *d);
void doctor_print(FILE *out, const struct doctor *d);

void doctor_kvm(struct doctor *d, const char *kvm_path); /* doctor_kvm.c */
/* doctor_linux.c: which guests run here, and how fast. @fd: of KVM, whose mode is @mode; @self_exe: next
 * to which the Linux image would be. */
void doctor_guests(struct doctor *d, int fd, enum kvm_mode mode, const char *self_exe);
void doctor_memory(struct doctor *d);	/* doctor_probe.c: mechanisms */
void doctor_settings(struct doctor *d); /* doctor_host.c: limits and sizes */

#endif
