/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sysfs.h: private header of ksm/: the settings of Linux KSM, below a root directory ("" is the
 * real one; tests give a tree of plain files), and the guardian with its root to be chosen.
 */
#ifndef OVERBOOK_KSM_SYSFS_H
#define OVERBOOK_KSM_SYSFS_H

#include "ksm/ksm.h"

#define KSM_VALUE_MAX 64

/* The settings that the guardian may change, in the order in which they are put back. */
enum ksm_setting {
	KSM_SET_MERGE_ACROSS_NODES,
	KSM_SET_USE_ZERO_PAGES,
	KSM_SET_SLEEP_MILLISECS,
	KSM_SET_PAGES_TO_SCAN,
	KSM_SET_ADVISOR_MAX_CPU,
	KSM_SET_ADVISOR_MIN_PAGES,
	KSM_SET_ADVISOR_MAX_PAGES,
	KSM_SET_ADVISOR_TARGET,
	KSM_SET_ADVISOR_MODE,
	KSM_SET_RUN,
	KSM_NSETTINGS,
};
extern const char *const ksm_setting_name[KSM_NSETTINGS];

/* Values as written back; an empty one means that this kernel has no such setting. */
struct ksm_settings {
	char value[KSM_NSETTINGS][KSM_VALUE_MAX];
};

/* Read one file of <root>/sys/kernel/mm/ksm: its line, or the choice in brackets of several. */
int ksm_sysfs_get(const char *root, const char *name, char *value, size_t size);
int ksm_sysfs_set(const char *root, const char *name, const char *value);

int ksm_settings_read(const char *root, struct ksm_settings *s);
/* Set one, unless it is so already. 0 or -errno with a line in @e. */
int ksm_setting_put(const char *root, enum ksm_setting which, const char *value, struct ob_err *e);
/* Set @s, all that can be, `run` last. 0, or the last -errno with a line in @e. */
int ksm_settings_restore(const char *root, const struct ksm_settings *s, struct ob_err *e);

/* pace.c: the settings of @p, and start it; what @s (as they are now) has not is left alone. */
int ksm_settings_pace(const char *root, const struct ksm_settings *s, const struct ksm_pace *p,
		      struct ob_err *e);
/*
 * Are they what only ksm_settings_pace makes of them? By those that every kernel has, and without
 * `run`, which may be off for a moment (ksm_driver_hold). The paces default and advisor cannot be
 * told from what a host may have by itself.
 */
bool ksm_settings_are_ours(const struct ksm_settings *s);
bool ksm_pace_equal(const struct ksm_pace *a, const struct ksm_pace *b);

#define KSM_SAVED_HEAD "overbook saved KSM settings 1\n"
/*
 * To and from text, with the pace that they were changed to (parse: @p may be NULL). format returns
 * the length, which does not depend on the pace; parse -EINVAL for what format has not written, also
 * when it is only a part of it.
 */
int ksm_settings_format(const struct ksm_settings *s, const struct ksm_pace *p, char *buf,
			size_t size);
int ksm_settings_parse(const char *buf, size_t len, struct ksm_settings *s, struct ksm_pace *p);

int ksm_sysfs_read_at(const char *root, struct ksm_sysfs_counters *out);

/* As the public ones, below @root. */
int ksm_driver_start_at(struct ksm_driver *d, const char *self_exe, const char *lock_path,
			const struct ksm_pace *pace, const char *root, struct ob_err *e);
int ksm_guardian_run(int pipe_fd, const char *lock_path, const struct ksm_pace *pace,
		     const char *root);

#endif
