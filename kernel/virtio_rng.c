/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_rng.c: an entropy source (virtio 1.2, section 5.4): one queue of buffers, which are filled
 * with random bytes of the host's kernel. A guest gets a seed for its own generator by it before it
 * has seen anything that is random, which an unmodified Linux waits for at boot.
 *
 * A request gets at least one byte and need not get all that it has room for: so what one costs is
 * bounded, and a turn of the I/O worker as well. No two guests are given the same bytes, so the pages
 * that they end up in are never alike.
 */
#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "kernel/device.h"

/* Bytes that one request gets at most. Linux asks for 64. */
#define RNG_REQUEST_BYTES 4096
/* In one call: up to 256 bytes getrandom(2) is not interrupted. */
#define RNG_CALL_BYTES 256

static struct virtio_rng *rng_of(struct virtio_dev *d)
{
	return (struct virtio_rng *)(void *)((char *)d - offsetof(struct virtio_rng, dev));
}

/* All of @buf; false when the host has no random bytes to give. */
static bool random_bytes(void *buf, size_t n)
{
	ssize_t r;

	do
		r = getrandom(buf, n, 0);
	while (r < 0 && errno == EINTR);
	return r == (ssize_t)n;
}

/* Fill one request and give it back. NULL, or why the device cannot go on. */
static const char *do_chain(struct virtio_rng *r, const struct virtq_chain *c)
{
	uint8_t bytes[RNG_CALL_BYTES];
	uint32_t done = 0;

	if (c->read_len)
		return "entropy request with a buffer that is not to be written";
	for (unsigned int i = 0; i < c->n && done < RNG_REQUEST_BYTES; i++) {
		uint32_t len = OB_MIN(c->buf[i].len, RNG_REQUEST_BYTES - done);

		for (uint32_t at = 0; at < len;) {
			uint32_t part = OB_MIN(len - at, (uint32_t)RNG_CALL_BYTES);

			if (!random_bytes(bytes, part))
				return "the host gives no random bytes";
			if (virtio_dev_write(&r->dev, gpa(c->buf[i].gpa.v + at), bytes, part))
				return "entropy request that cannot be written";
			at += part;
		}
		done += len;
	}
	/* What others may not have must not stay on this stack either. */
	explicit_bzero(bytes, sizeof(bytes));
	atomic_fetch_add_explicit(&r->bytes, done, memory_order_relaxed);
	return virtio_dev_push(&r->dev, 0, c->head, done);
}

static void rng_work(struct io_work *w)
{
	struct virtio_rng *r =
		(struct virtio_rng *)(void *)((char *)w - offsetof(struct virtio_rng, work));
	unsigned int done = 0;
	struct virtq_chain c;
	const char *why = NULL;

	while (!why && done < VIRTIO_TURN_REQUESTS && virtio_dev_live(&r->dev) &&
	       virtio_dev_pop(&r->dev, 0, &c, &why)) {
		why = do_chain(r, &c);
		done++;
	}
	if (done)
		virtio_dev_interrupt(&r->dev, 0);
	if (why)
		virtio_dev_fail(&r->dev, why);
	else if (done == VIRTIO_TURN_REQUESTS)
		r->dev.ops->notify(&r->dev, 0);
}

static void rng_notify(struct virtio_dev *d, unsigned int q)
{
	struct virtio_rng *r = rng_of(d);

	OB_ASSERT(q == 0);
	io_worker_queue(r->worker, &r->work);
}

static void rng_reset(struct virtio_dev *d)
{
	struct virtio_rng *r = rng_of(d);

	io_worker_drain(r->worker, &r->work);
}

static const struct virtio_dev_ops rng_ops = {
	.device_id = 4,
	.features = VIRTIO_F_INDIRECT_DESC,
	.nqueues = 1,
	.notify = rng_notify,
	.reset = rng_reset,
};

void virtio_rng_init(struct virtio_rng *r, struct vm *vm, struct gmem *mem, struct io_worker *w)
{
	*r = (struct virtio_rng){.worker = w, .work.run = rng_work};
	virtio_dev_init(&r->dev, &rng_ops, vm, mem);
}

void virtio_rng_exit(struct virtio_rng *r)
{
	virtio_dev_exit(&r->dev);
}
