/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control.h: private to harness/. The control socket of a command that runs fleets: where it is
 * (control_dir.c), its life (control.c), and what can be asked there (coord_control.c).
 *
 * It lives as long as the command; `compare` runs one fleet after another behind the same socket. It
 * is served by the coordinator wherever that waits, in its one thread, so a command finds the fleet
 * between two readings and needs no lock.
 */
#ifndef OVERBOOK_HARNESS_CONTROL_H
#define OVERBOOK_HARNESS_CONTROL_H

#include <sys/types.h>

#include "harness/harness.h"
#include "harness/qmp.h"

struct coord;

struct control {
	struct qmp_server *server;
	struct qmp_service service;
	struct coord *coord; /* the fleet that there is; NULL: none at this moment */
	char package[80];
};

/* The commands, for the service. */
extern const struct qmp_command control_commands[];
extern const size_t control_ncommands;

/* "0x7f00", "32512": a 64-bit address. -EINVAL, -ERANGE. Pure. */
int control_parse_addr(const char *s, uint64_t *out);

/* Serve clients for up to @ns. NULL: just wait. Returns early after serving, or on a signal. */
void control_serve(struct control *ctl, uint64_t ns);
void control_event(struct control *ctl, const char *name, json_t *data);

/* --- control_dir.c ----------------------------------------------------------------------- */

#define CONTROL_PATH_MAX 256

/*
 * The folder where sockets are when nobody names another: $XDG_RUNTIME_DIR/overbook, else for root
 * /run/overbook, else /tmp/overbook-UID. Pure: @xdg is that variable's value or NULL. -ENAMETOOLONG.
 */
int control_dir_name(char *buf, size_t n, const char *xdg, uid_t uid);
/*
 * The socket that this process makes when nobody names another; its folder is made when it is not
 * there (0700). -errno with a line when the folder is not ours alone (-EPERM).
 */
int control_default_path(char *buf, size_t n, struct ob_err *e);
/* The one live socket in that folder. None (-ENOENT) or several (-EEXIST): the line says which. */
int control_find(char *buf, size_t n, struct ob_err *e);

#endif
