/* SPDX-License-Identifier: Apache-2.0 */
/* serial_int.h: what serial.c and serial_out.c share. All of it under the serial's lock. */
#ifndef OVERBOOK_KERNEL_SERIAL_INT_H
#define OVERBOOK_KERNEL_SERIAL_INT_H

#include "kernel/device.h"

/* s->fd is set, the rest is zero. */
void serial_out_init(struct serial *s);
/* Another kernel starts: it has not panicked yet. */
void serial_out_reset(struct serial *s);
/* The guest prints a byte. */
void serial_put(struct serial *s, uint8_t c);

#endif
