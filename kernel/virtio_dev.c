/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_dev.c: a virtio device between its driver and the thread that does its work: whether it may take
 * work, how it rings and is rung, how it breaks, and how it leaves the live state.
 *
 * Locking. Registers are used on vCPU threads, the queues by the one thread that does the device's
 * work, and the lock is not held while that works. What keeps them apart is the status:
 *
 *  - queues are changed by register writes only while the device is not live (before DRIVER_OK);
 *  - the worker touches a queue only after it has seen virtio_dev_live, which takes the lock;
 *  - to leave the live state (a reset, a queue taken down, the end), `resetting` is set, which
 *    makes the device not live and lets no other vCPU change a register; then the worker is
 *    drained, with no lock held and the vCPU counted as out; then the state is changed.
 *
 * So a worker that has seen the device live may use its queue until it returns. Nothing is waited
 * for with the lock held, and no lock is taken inside it.
 */
#include <unistd.h>

#include "kernel/vcpu.h"
#include "kernel/virtio_dev_int.h"

#define IRQ_USED   1
#define IRQ_CONFIG 2

void virtio_dev_init(struct virtio_dev *d, const struct virtio_dev_ops *ops, struct vm *vm,
		     struct gmem *mem)
{
	OB_ASSERT(ops->nqueues && ops->nqueues <= VIRTIO_MAX_QUEUES);
	*d = (struct virtio_dev){
		.ops = ops,
		.nqueues = ops->nqueues,
		.queue_max = VIRTQ_MAX,
		.features = ops->features | VIRTIO_F_VERSION_1,
		.vm = vm,
		.mem = mem,
		.irq_fd = -1,
	};
	for (unsigned int i = 0; i < ops->nqueues; i++)
		d->q[i].mem = mem;
	ob_mutex_init(&d->lock, OB_RANK_VIRTIO);
	pthread_cond_init(&d->at_rest, NULL);
}

bool virtio_dev_live_locked(const struct virtio_dev *d)
{
	return d->status & VIRTIO_S_DRIVER_OK && !d->resetting && !d->broken;
}

bool virtio_dev_live(struct virtio_dev *d)
{
	bool yes;

	ob_lock(&d->lock);
	yes = virtio_dev_live_locked(d);
	ob_unlock(&d->lock);
	return yes;
}

/* Its counter cannot be full: KVM takes the ticks at once. Should it be, the guest has one coming. */
static void tick(const struct virtio_dev *d)
{
	uint64_t one = 1;

	if (d->irq_fd >= 0 && write(d->irq_fd, &one, sizeof(one)) != sizeof(one))
		return;
}

void virtio_dev_fail(struct virtio_dev *d, const char *why)
{
	ob_lock(&d->lock);
	if (!d->broken)
		d->why = why;
	d->broken = true;
	d->status |= VIRTIO_S_NEEDS_RESET;
	if (d->status & VIRTIO_S_DRIVER_OK)
		d->irq_status |= IRQ_CONFIG;
	ob_unlock(&d->lock);
	if (d->vm)
		vm_fail(d->vm, "virtio device (type %u): %s", d->ops->device_id, why);
}

void virtio_dev_interrupt(struct virtio_dev *d, unsigned int q)
{
	OB_ASSERT(q < d->nqueues);
	if (!virtq_wants_irq(&d->q[q]))
		return;
	ob_lock(&d->lock);
	d->irq_status |= IRQ_USED;
	ob_unlock(&d->lock);
	tick(d);
	/* On a PC nobody sleeps but in KVM, which has the tick. */
	if (d->vm && d->irq_fd < 0)
		vm_wake(d->vm);
}

void virtio_dev_doorbell(struct virtio_dev *d, unsigned int q)
{
	bool ring;

	OB_ASSERT(q < d->nqueues);
	ob_lock(&d->lock);
	ring = virtio_dev_live_locked(d) && d->q[q].ready;
	ob_unlock(&d->lock);
	if (ring)
		d->ops->notify(d, q);
}

/* --- leaving the live state ------------------------------------------------------------------- */

/* Everything as after virtio_dev_init; what the driver had set is forgotten. */
static void forget(struct virtio_dev *d)
{
	for (unsigned int i = 0; i < d->nqueues; i++)
		virtq_reset(&d->q[i]);
	d->status = 0;
	d->dev_sel = d->drv_sel = d->q_sel = 0;
	d->drv_features = 0;
	d->irq_status = 0;
	d->broken = false;
	d->why = NULL;
}

/*
 * Wait for the work under way; then queue @q is taken down, or all is reset where @q is NULL. With the
 * lock held, dropped in between. A reset that somebody wants meanwhile is part of this one, which then
 * is a reset, too.
 *
 * The wait is as long as the disk takes, so whoever parks the VM does not wait for a vCPU that is in it.
 * It goes in again when the device is done with: a reset of the machine, which takes vCPUs that are out
 * as they are, finds a device that is at rest, and nothing is done to it later.
 */
static void quiesce(struct virtio_dev *d, struct virtq *q)
{
	struct vcpu *v;

	d->resetting = true;
	d->reset_wanted = !q;
	ob_unlock(&d->lock);
	v = d->vm ? vcpu_step_out(d->vm) : NULL;
	d->ops->reset(d);
	ob_lock(&d->lock);
	if (d->reset_wanted)
		forget(d);
	else
		q->ready = false;
	d->resetting = false;
	pthread_cond_broadcast(&d->at_rest);
	ob_unlock(&d->lock);
	vcpu_step_in(v);
	ob_lock(&d->lock);
}

void virtio_dev_reset_locked(struct virtio_dev *d)
{
	if (d->resetting)
		d->reset_wanted = true;
	else
		quiesce(d, NULL);
}

void virtio_dev_stop_queue(struct virtio_dev *d, struct virtq *q)
{
	if (q->ready && !d->resetting)
		quiesce(d, q);
}

void virtio_dev_reset(struct virtio_dev *d)
{
	ob_lock(&d->lock);
	virtio_dev_reset_locked(d);
	while (d->resetting)
		ob_cond_wait(&d->at_rest, &d->lock);
	ob_unlock(&d->lock);
}

/* As for a reset, the device stops being live before its work is waited for: what the driver has
 * queued is not done any more, only what is under way ends. The vCPUs are gone by now. */
void virtio_dev_exit(struct virtio_dev *d)
{
	ob_lock(&d->lock);
	d->resetting = true;
	ob_unlock(&d->lock);
	d->ops->reset(d);
	pthread_cond_destroy(&d->at_rest);
	ob_mutex_destroy(&d->lock);
}
