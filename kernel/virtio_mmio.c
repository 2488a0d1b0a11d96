/* SPDX-License-Identifier: Apache-2.0 */
/*
 * virtio_mmio.c: the MMIO transport of virtio 1.2 (section 4.2, version 2): the register file
 * through which a driver finds a device, agrees on features, sets up its queues and rings the
 * doorbell.
 *
 * A driver walks ACKNOWLEDGE, DRIVER, FEATURES_OK, (queues), DRIVER_OK. What it does out of turn is
 * ignored where the specification says that it has no effect or must not be done and no harm can
 * come of it (registers of a live queue, unknown registers, accesses of a wrong width). Where the
 * two sides can no longer agree on what the device's state is, the device is broken: it needs a
 * reset, and the VM is stopped with the reason.
 *
 * How these registers and the device's work keep out of each other's way stands in virtio_dev.c.
 */
#include "kernel/virtio_dev_int.h"

enum {
	REG_MAGIC = 0x000,
	REG_VERSION = 0x004,
	REG_DEVICE_ID = 0x008,
	REG_VENDOR_ID = 0x00c,
	REG_DEVICE_FEATURES = 0x010,
	REG_DEVICE_FEATURES_SEL = 0x014,
	REG_DRIVER_FEATURES = 0x020,
	REG_DRIVER_FEATURES_SEL = 0x024,
	REG_QUEUE_SEL = 0x030,
	REG_QUEUE_NUM_MAX = 0x034,
	REG_QUEUE_NUM = 0x038,
	REG_QUEUE_READY = 0x044,
	REG_QUEUE_NOTIFY = VIRTIO_REG_NOTIFY,
	REG_INTERRUPT_STATUS = 0x060,
	REG_INTERRUPT_ACK = 0x064,
	REG_STATUS = 0x070,
	REG_QUEUE_DESC_LOW = 0x080,
	REG_QUEUE_DESC_HIGH = 0x084,
	REG_QUEUE_DRIVER_LOW = 0x090,
	REG_QUEUE_DRIVER_HIGH = 0x094,
	REG_QUEUE_DEVICE_LOW = 0x0a0,
	REG_QUEUE_DEVICE_HIGH = 0x0a4,
	REG_SHM_LEN_LOW = 0x0b0,
	REG_SHM_BASE_HIGH = 0x0bc,
	REG_CONFIG_GENERATION = 0x0fc,
	REG_CONFIG = 0x100,
};

#define MMIO_MAGIC   0x74726976 /* "virt" */
#define MMIO_VERSION 2
#define MMIO_VENDOR  0x4b4f424f /* "OBOK" */

/* --- writes: each returns NULL, or why the device cannot go on -------------------------------- */

static bool features_ok(const struct virtio_dev *d)
{
	return !(d->drv_features & ~d->features) && d->drv_features & VIRTIO_F_VERSION_1;
}

static const char *write_status(struct virtio_dev *d, uint32_t v)
{
	uint32_t old = d->status & VIRTIO_S_DRIVERS;

	v &= VIRTIO_S_DRIVERS;
	if (old & ~v)
		return "driver took back a status bit without a reset";
	if (v & VIRTIO_S_DRIVER && !(v & VIRTIO_S_ACKNOWLEDGE))
		return "status DRIVER without ACKNOWLEDGE";
	if (v & VIRTIO_S_FEATURES_OK && !(v & VIRTIO_S_DRIVER))
		return "status FEATURES_OK without DRIVER";
	/* Refusing is done by not taking the bit; the driver reads it back. */
	if (v & ~old & VIRTIO_S_FEATURES_OK && !features_ok(d))
		v &= ~(uint32_t)VIRTIO_S_FEATURES_OK;
	if (v & VIRTIO_S_DRIVER_OK && !(v & VIRTIO_S_FEATURES_OK))
		return "status DRIVER_OK without features agreed on";
	d->status = v | (d->status & VIRTIO_S_NEEDS_RESET);
	return NULL;
}

static void write_features(struct virtio_dev *d, uint32_t v)
{
	if (d->status & VIRTIO_S_FEATURES_OK)
		return; /* agreed on */
	if (d->drv_sel == 0)
		d->drv_features = (d->drv_features & ~0xffffffffULL) | v;
	else if (d->drv_sel == 1)
		d->drv_features = (d->drv_features & 0xffffffffULL) | (uint64_t)v << 32;
	/* Higher words have no features of ours: a driver that sets one there is
	 * not agreed with. */
	else if (v)
		d->drv_features |= ~d->features;
}

static void set_low(gpa_t *a, uint32_t v)
{
	a->v = (a->v & ~0xffffffffULL) | v;
}

static void set_high(gpa_t *a, uint32_t v)
{
	a->v = (a->v & 0xffffffffULL) | (uint64_t)v << 32;
}

static const char *write_ready(struct virtio_dev *d, struct virtq *q, uint32_t v)
{
	const char *why = NULL;

	if (!(v & 1)) {
		virtio_dev_stop_queue(d, q);
		return NULL;
	}
	if (q->ready)
		return NULL;
	if (!(d->status & VIRTIO_S_FEATURES_OK))
		return "queue enabled before features were agreed on";
	if (d->status & VIRTIO_S_DRIVER_OK)
		return "queue enabled after DRIVER_OK";
	if (q->size > d->queue_max)
		return "queue size is not a power of two within the limit";
	q->indirect = d->drv_features & VIRTIO_F_INDIRECT_DESC;
	virtq_enable(q, &why);
	return why;
}

/* Registers of the selected queue: they may be set only while it is not in use. */
static const char *write_queue(struct virtio_dev *d, uint64_t off, uint32_t v)
{
	struct virtq *q;

	if (d->q_sel >= d->nqueues)
		return NULL;
	q = &d->q[d->q_sel];
	if (off == REG_QUEUE_READY)
		return write_ready(d, q, v);
	if (q->ready || d->status & VIRTIO_S_DRIVER_OK)
		return NULL;
	switch (off) {
	case REG_QUEUE_NUM:
		/* What is too large for the field stays too large; enabling it is refused. */
		q->size = (uint16_t)OB_MIN(v, UINT16_MAX);
		break;
	case REG_QUEUE_DESC_LOW:
		set_low(&q->desc, v);
		break;
	case REG_QUEUE_DESC_HIGH:
		set_high(&q->desc, v);
		break;
	case REG_QUEUE_DRIVER_LOW:
		set_low(&q->avail, v);
		break;
	case REG_QUEUE_DRIVER_HIGH:
		set_high(&q->avail, v);
		break;
	case REG_QUEUE_DEVICE_LOW:
		set_low(&q->used, v);
		break;
	case REG_QUEUE_DEVICE_HIGH:
		set_high(&q->used, v);
		break;
	default: /* not a register that is written */
		break;
	}
	return NULL;
}

static const char *write_reg(struct virtio_dev *d, uint64_t off, uint32_t v)
{
	switch (off) {
	case REG_DEVICE_FEATURES_SEL:
		d->dev_sel = v;
		return NULL;
	case REG_DRIVER_FEATURES:
		write_features(d, v);
		return NULL;
	case REG_DRIVER_FEATURES_SEL:
		d->drv_sel = v;
		return NULL;
	case REG_QUEUE_SEL:
		d->q_sel = v;
		return NULL;
	case REG_STATUS:
		return write_status(d, v);
	default:
		return write_queue(d, off, v);
	}
}

static void mmio_write(void *dev, uint64_t off, unsigned int size, uint64_t value)
{
	struct virtio_dev *d = dev;
	uint32_t v = (uint32_t)value;
	const char *why = NULL;
	bool ring = false, stopped = false;

	if (size != 4 || off & 3 || off >= REG_CONFIG)
		return; /* no register of ours is so wide, and no configuration can be written */
	ob_lock(&d->lock);
	/* These two also while another vCPU waits for the device to come to rest. */
	if (off == REG_INTERRUPT_ACK) {
		d->irq_status &= ~v;
	} else if (off == REG_STATUS && !v) {
		virtio_dev_reset_locked(d);
	} else if (!d->resetting) {
		if (off != REG_QUEUE_NOTIFY)
			why = write_reg(d, off, v);
		else if (v >= d->nqueues)
			why = "notification for a queue that there is not";
		else
			ring = virtio_dev_live_locked(d) && d->q[v].ready;
		stopped = off == REG_QUEUE_READY && !(v & 1) && virtio_dev_live_locked(d);
	}
	ob_unlock(&d->lock);
	/* Both take locks of their own. A late ring finds a device that is not live, and does
	 * nothing. */
	if (why)
		virtio_dev_fail(d, why);
	else if (ring)
		d->ops->notify(d, v);
	/* While one queue was taken down the device was deaf for the others. */
	for (unsigned int q = 0; stopped && q < d->nqueues; q++)
		virtio_dev_doorbell(d, q);
}

/* --- reads ------------------------------------------------------------------------------------ */

static uint32_t feature_word(const struct virtio_dev *d)
{
	return d->dev_sel > 1 ? 0 : (uint32_t)(d->features >> (32 * d->dev_sel));
}

static uint32_t read_reg(const struct virtio_dev *d, uint64_t off)
{
	bool have_q = d->q_sel < d->nqueues;

	switch (off) {
	case REG_MAGIC:
		return MMIO_MAGIC;
	case REG_VERSION:
		return MMIO_VERSION;
	case REG_DEVICE_ID:
		return d->ops->device_id;
	case REG_VENDOR_ID:
		return MMIO_VENDOR;
	case REG_DEVICE_FEATURES:
		return feature_word(d);
	case REG_QUEUE_NUM_MAX:
		return have_q ? d->queue_max : 0;
	case REG_QUEUE_READY:
		return have_q && d->q[d->q_sel].ready;
	case REG_INTERRUPT_STATUS:
		return d->irq_status;
	case REG_STATUS:
		return d->status;
	case REG_CONFIG_GENERATION:
		return 0; /* our devices' configuration never changes */
	default:
		/* There is no shared memory region: length and base are all ones. */
		return off >= REG_SHM_LEN_LOW && off <= REG_SHM_BASE_HIGH ? UINT32_MAX : 0;
	}
}

static uint64_t mmio_read(void *dev, uint64_t off, unsigned int size)
{
	struct virtio_dev *d = dev;
	uint32_t v;

	if (off & (size - 1))
		return 0;
	if (off >= REG_CONFIG)
		return d->ops->config_read ? d->ops->config_read(d, off - REG_CONFIG, size) : 0;
	if (size != 4)
		return 0;
	ob_lock(&d->lock);
	v = read_reg(d, off);
	ob_unlock(&d->lock);
	return v;
}

const struct bus_ops virtio_mmio_bus_ops = {
	.read = mmio_read,
	.write = mmio_write,
};
