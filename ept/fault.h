/* SPDX-License-Identifier: Apache-2.0 */
/* fault.h: private to ept/: the thread that answers faults, for stage.c. */
#ifndef OVERBOOK_EPT_FAULT_H
#define OVERBOOK_EPT_FAULT_H

#include "ept/ept_int.h"

/* With e->lock held; @st is not yet e->stage. */
int ept_handler_start(struct ept *e, struct ept_stage *st);
/* Returns when the thread has ended. Not with e->lock held. */
void ept_handler_stop(struct ept_stage *st);
/* Faults of the window that @page is in come to us from now on. e->lock held. */
int ept_window_open(struct ept *e, uint64_t page);

#endif
