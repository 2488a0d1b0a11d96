/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_work.c: what the work of all virtio devices has in common, on the I/O worker: taking chains
 * and giving them back, and copies to and from guest memory.
 *
 * Each of them may find that a guest has too many accesses under way (-EBUSY, others hold theirs for
 * microseconds). That is no fault of the device's driver, so it is waited out here, for about a
 * second; a device sees what is done, or why it cannot go on.
 */
#include <errno.h>
#include <time.h>

#include "kernel/device.h"

#define BUSY_NS	   50000
#define BUSY_TRIES 20000

void virtio_rest(uint64_t ns)
{
	struct timespec ts = {
		.tv_sec = (time_t)(ns / OB_NS_PER_SEC),
		.tv_nsec = (long)(ns % OB_NS_PER_SEC),
	};

	while (nanosleep(&ts, &ts) && errno == EINTR)
		;
}

bool virtio_busy_again(unsigned int *tries)
{
	if (++*tries >= BUSY_TRIES)
		return false;
	virtio_rest(BUSY_NS);
	return true;
}

int virtio_dev_write(struct virtio_dev *d, gpa_t at, const void *buf, uint64_t len)
{
	unsigned int tries = 0;
	int rc;

	do
		rc = gmem_write(d->mem, at, buf, len);
	while (rc == -EBUSY && virtio_busy_again(&tries));
	return rc;
}

int virtio_dev_read(struct virtio_dev *d, gpa_t at, void *buf, uint64_t len)
{
	unsigned int tries = 0;
	int rc;

	do
		rc = gmem_read(d->mem, at, buf, len);
	while (rc == -EBUSY && virtio_busy_again(&tries));
	return rc;
}

bool virtio_dev_pop(struct virtio_dev *d, unsigned int q, struct virtq_chain *c, const char **why)
{
	unsigned int tries = 0;
	int rc;

	do
		rc = virtq_pop(&d->q[q], c, why);
	while (rc == -EBUSY && virtio_busy_again(&tries));
	if (rc == -EBUSY)
		*why = "available ring could not be reached";
	return rc > 0;
}

const char *virtio_dev_push(struct virtio_dev *d, unsigned int q, uint16_t head, uint32_t len)
{
	const char *why = NULL;
	unsigned int tries = 0;
	int rc;

	do
		rc = virtq_push(&d->q[q], head, len, &why);
	while (rc == -EBUSY && virtio_busy_again(&tries));
	return rc == -EBUSY ? "used ring could not be reached" : why;
}
