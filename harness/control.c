/* SPDX-License-Identifier: Apache-2.0 */
/* control.c: the control socket of a command: opened before its first fleet, closed at its end. */
#include "harness/control.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int control_parse_addr(const char *s, uint64_t *out)
{
	bool hex = s[0] == '0' && (s[1] == 'x' || s[1] == 'X');
	uint64_t v = 0;

	if (hex)
		s += 2;
	if (!*s)
		return -EINVAL;
	for (; *s; s++) {
		unsigned int digit;

		if (*s >= '0' && *s <= '9')
			digit = (unsigned int)(*s - '0');
		else if (hex && isxdigit((unsigned char)*s))
			digit = (unsigned int)(tolower((unsigned char)*s) - 'a') + 10;
		else
			return -EINVAL;
		if (__builtin_mul_overflow(v, hex ? 16 : 10, &v) ||
		    __builtin_add_overflow(v, digit, &v))
			return -ERANGE;
	}
	*out = v;
	return 0;
}

int control_open(struct control **out, const char *path, struct ob_err *e)
{
	char by_default[CONTROL_PATH_MAX];
	json_t *git = result_git_json();
	struct control *ctl;
	int r;

	*out = NULL;
	if (path && !strcmp(path, "none")) {
		json_decref(git);
		return 0;
	}
	ctl = calloc(1, sizeof(*ctl));
	OB_ASSERT(ctl);
	snprintf(ctl->package, sizeof(ctl->package), "overbook %s (%.40s)", OB_VERSION,
		 json_string_value(json_object_get(git, "revision")));
	json_decref(git);
	ctl->service = (struct qmp_service){
		.command = control_commands,
		.ncommands = control_ncommands,
		.ctx = ctl,
		.package = ctl->package,
	};
	r = path ? 0 : control_default_path(by_default, sizeof(by_default), e);
	if (!r)
		r = qmp_server_open(&ctl->server, path ? path : by_default, &ctl->service, e);
	if (!r) {
		*out = ctl;
		return 0;
	}
	free(ctl);
	if (path)
		return r;
	/* Nobody has asked for it: a fleet without one is still a fleet. */
	ob_warn("%s; going on without a control socket", e->msg);
	return 0;
}

void control_close(struct control *ctl)
{
	const char *reason = "none"; /* it has come to its end */

	if (!ctl)
		return;
	if (ob_stop_signal)
		reason = ob_stop_signal == OB_STOP_CONTROL ? "host-qmp-quit" : "host-signal";
	control_event(ctl, "SHUTDOWN", json_pack("{s:b,s:s}", "guest", 0, "reason", reason));
	qmp_server_close(ctl->server);
	free(ctl);
}

const char *control_path(const struct control *ctl)
{
	return qmp_server_path(ctl->server);
}

void control_serve(struct control *ctl, uint64_t ns)
{
	struct timespec ts = {.tv_sec = (time_t)(ns / OB_NS_PER_SEC),
			      .tv_nsec = (long)(ns % OB_NS_PER_SEC)};

	if (ctl)
		qmp_server_serve(ctl->server, ns);
	else if (ns)
		nanosleep(&ts, NULL);
}

void control_event(struct control *ctl, const char *name, json_t *data)
{
	if (ctl)
		qmp_server_event(ctl->server, name, data);
	else
		json_decref(data);
}
