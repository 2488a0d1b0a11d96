/* SPDX-License-Identifier: Apache-2.0 */
/* pure_virtio_mmio.c: the register file of the transport, with a device that only counts. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fake_host.h"
#include "tests/virtio_driver.h"

#define F_A (1ULL << 3)
#define F_B (1ULL << 40)

struct dev {
	struct virtio_dev d; /* first */
	unsigned int rings, resets;
	bool live_in_reset;
	bool other_resets; /* another vCPU does, in the middle of a reset */
};

static void on_notify(struct virtio_dev *d, unsigned int q)
{
	cr_assert_eq(q, 0);
	((struct dev *)(void *)d)->rings++;
}

static uint64_t on_config(struct virtio_dev *d, uint64_t off, unsigned int size)
{
	(void)d;
	return off << 8 | size;
}

static void on_reset(struct virtio_dev *d)
{
	struct dev *dev = (struct dev *)(void *)d;

	dev->resets++;
	dev->live_in_reset |= virtio_dev_live(d);
	/* Another vCPU is at the registers meanwhile: nothing may change. */
	vdrv_set(d, VDRV_STATUS, 0xff);
	vdrv_set(d, VDRV_QUEUE_READY, 0);
	vdrv_set(d, VDRV_QUEUE_SEL, 1);
	vdrv_set(d, VDRV_QUEUE_NOTIFY, 0);
	/* But for these. */
	vdrv_set(d, VDRV_IRQ_ACK, 1);
	cr_assert(!(vdrv_get(d, VDRV_IRQ_STATUS) & 1));
	if (dev->other_resets)
		vdrv_set(d, VDRV_STATUS, 0);
}

static const struct virtio_dev_ops ops = {
	.device_id = 42,
	.features = F_A | F_B,
	.nqueues = 2,
	.notify = on_notify,
	.config_read = on_config,
	.reset = on_reset,
};

struct bed {
	struct ob_host *h;
	struct gmem gm;
	struct dev dev;
	struct virtio_dev *d;
	struct vdrv v;
};

static struct bed *bed_new(void)
{
	struct bed *b = calloc(1, sizeof(*b));

	b->h = fake_host_new();
	cr_assert_eq(gmem_init(&b->gm, b->h, OB_MIB, "t"), 0);
	b->d = &b->dev.d;
	virtio_dev_init(b->d, &ops, NULL, &b->gm);
	vdrv_layout(&b->v, b->d, &b->gm, 16, gpa(0x1000));
	return b;
}

static void bed_free(struct bed *b)
{
	cr_assert(!b->dev.live_in_reset);
	virtio_dev_exit(b->d);
	gmem_exit(&b->gm);
	fake_host_free(b->h);
	free(b);
}

/* The device must have become broken, for this reason. */
static void broke(struct bed *b, const char *why)
{
	cr_assert(b->d->broken, "should say: %s", why);
	cr_assert_str_eq(b->d->why, why);
	cr_assert(vdrv_get(b->d, VDRV_STATUS) & VDRV_S_NEEDS_RESET);
	cr_assert(!virtio_dev_live(b->d));
	vdrv_set(b->d, VDRV_STATUS, 0);
	cr_assert(!b->d->broken, "a reset mends it");
	cr_assert_eq(vdrv_get(b->d, VDRV_STATUS), 0);
	bed_free(b);
}

Test(virtio_mmio, identity)
{
	struct bed *b = bed_new();

	cr_assert_eq(vdrv_get(b->d, VDRV_MAGIC), 0x74726976);
	cr_assert_eq(vdrv_get(b->d, VDRV_VERSION), 2);
	cr_assert_eq(vdrv_get(b->d, VDRV_DEVICE_ID), 42);
	cr_assert_eq(vdrv_get(b->d, VDRV_CONFIG_GEN), 0);
	cr_assert_eq(vdrv_get(b->d, 0x0b0), UINT32_MAX, "no shared memory");
	cr_assert_eq(vdrv_get(b->d, 0x0bc), UINT32_MAX);
	vdrv_set(b->d, VDRV_DEV_FEATURES_SEL, 0);
	cr_assert_eq(vdrv_get(b->d, VDRV_DEV_FEATURES), F_A);
	vdrv_set(b->d, VDRV_DEV_FEATURES_SEL, 1);
	cr_assert_eq(vdrv_get(b->d, VDRV_DEV_FEATURES), (F_B | VIRTIO_F_VERSION_1) >> 32);
	vdrv_set(b->d, VDRV_DEV_FEATURES_SEL, 7);
	cr_assert_eq(vdrv_get(b->d, VDRV_DEV_FEATURES), 0);
	bed_free(b);
}

Test(virtio_mmio, widths_are_checked)
{
	struct bed *b = bed_new();
	const struct bus_ops *o = &virtio_mmio_bus_ops;

	cr_assert_eq(o->read(b->d, VDRV_MAGIC, 1), 0);
	cr_assert_eq(o->read(b->d, VDRV_MAGIC, 8), 0);
	cr_assert_eq(o->read(b->d, VDRV_MAGIC + 2, 4), 0);
	o->write(b->d, VDRV_STATUS, 1, VDRV_S_ACK);
	o->write(b->d, VDRV_STATUS, 8, VDRV_S_ACK);
	o->write(b->d, VDRV_STATUS + 1, 4, VDRV_S_ACK);
	cr_assert_eq(vdrv_get(b->d, VDRV_STATUS), 0);
	cr_assert_eq(o->read(b->d, VDRV_CONFIG + 6, 2), 6 << 8 | 2);
	cr_assert_eq(o->read(b->d, VDRV_CONFIG + 6, 4), 0, "not aligned");
	bed_free(b);
}

Test(virtio_mmio, a_driver_that_does_it_right)
{
	struct bed *b = bed_new();

	cr_assert_eq(vdrv_negotiate(b->d, F_A), 11);
	vdrv_set(b->d, VDRV_QUEUE_NOTIFY, 0);
	cr_assert_eq(b->dev.rings, 0, "not live yet");
	cr_assert_eq(vdrv_get(b->d, VDRV_QUEUE_NUM_MAX), VIRTQ_MAX);
	cr_assert_eq(vdrv_get(b->d, VDRV_QUEUE_READY), 0);
	cr_assert_eq(vdrv_start(&b->v), 15);
	cr_assert_eq(vdrv_get(b->d, VDRV_QUEUE_READY), 1);
	cr_assert(virtio_dev_live(b->d));
	vdrv_set(b->d, VDRV_QUEUE_NOTIFY, 0);
	cr_assert_eq(b->dev.rings, 1);
	vdrv_set(b->d, VDRV_QUEUE_NOTIFY, 1);
	cr_assert_eq(b->dev.rings, 1, "a queue that is not ready");

	virtio_dev_interrupt(b->d, 0);
	cr_assert_eq(vdrv_get(b->d, VDRV_IRQ_STATUS), 1);
	vdrv_set(b->d, VDRV_IRQ_ACK, 2);
	cr_assert_eq(vdrv_get(b->d, VDRV_IRQ_STATUS), 1);
	vdrv_set(b->d, VDRV_IRQ_ACK, 1);
	cr_assert_eq(vdrv_get(b->d, VDRV_IRQ_STATUS), 0);

	vdrv_set(b->d, VDRV_QUEUE_SEL, 2);
	cr_assert_eq(vdrv_get(b->d, VDRV_QUEUE_NUM_MAX), 0, "no such queue");
	vdrv_set(b->d, VDRV_QUEUE_NUM, 4);
	vdrv_set(b->d, VDRV_QUEUE_READY, 1);
	cr_assert(!b->d->broken);

	vdrv_set(b->d, VDRV_STATUS, 0);
	cr_assert_eq(b->dev.resets, 2, "one of them before negotiating");
	cr_assert_eq(vdrv_get(b->d, VDRV_STATUS), 0);
	cr_assert(!b->d->q[0].ready && !b->d->q[0].size && b->d->q[0].mem == &b->gm);
	cr_assert_eq(vdrv_init(&b->v, b->d, &b->gm, 8, gpa(0x2000), 0), 15, "and again");
	bed_free(b);
}

/* At the end too a device is not live any more when its work is waited for. */
Test(virtio_mmio, it_is_not_live_while_its_last_work_is_drained)
{
	struct bed *b = bed_new();
	unsigned int before;

	vdrv_negotiate(b->d, 0);
	vdrv_start(&b->v);
	cr_assert(virtio_dev_live(b->d));
	before = b->dev.resets;
	virtio_dev_exit(b->d);
	cr_assert_eq(b->dev.resets, before + 1);
	cr_assert(!b->dev.live_in_reset);
	gmem_exit(&b->gm);
	fake_host_free(b->h);
	free(b);
}

Test(virtio_mmio, a_live_queue_cannot_be_changed)
{
	struct bed *b = bed_new();
	struct virtq before;

	vdrv_negotiate(b->d, 0);
	vdrv_start(&b->v);
	before = b->d->q[0];
	vdrv_set(b->d, VDRV_QUEUE_NUM, 2);
	vdrv_set64(b->d, VDRV_QUEUE_DESC, UINT64_MAX);
	vdrv_set64(b->d, VDRV_QUEUE_AVAIL, UINT64_MAX);
	vdrv_set64(b->d, VDRV_QUEUE_USED, UINT64_MAX);
	vdrv_set(b->d, VDRV_QUEUE_READY, 1);
	cr_assert(!memcmp(&before, &b->d->q[0], sizeof(before)));
	cr_assert(!b->d->broken);
	vdrv_set(b->d, VDRV_QUEUE_READY, 0);
	cr_assert_eq(vdrv_get(b->d, VDRV_QUEUE_READY), 0, "but it can be taken down");
	cr_assert_eq(b->dev.resets, 2, "after its work was drained");
	vdrv_set(b->d, VDRV_QUEUE_NOTIFY, 0);
	cr_assert_eq(b->dev.rings, 0);
	bed_free(b);
}

/* What was rung for while another queue was taken down is rung again: on_reset tries it. */
Test(virtio_mmio, a_queue_taken_down_makes_no_other_one_deaf)
{
	struct bed *b = bed_new();
	unsigned int rings;

	vdrv_negotiate(b->d, 0);
	vdrv_set(b->d, VDRV_QUEUE_SEL, 1);
	vdrv_set(b->d, VDRV_QUEUE_NUM, 8);
	vdrv_set64(b->d, VDRV_QUEUE_DESC, 0x8000);
	vdrv_set64(b->d, VDRV_QUEUE_AVAIL, 0x9000);
	vdrv_set64(b->d, VDRV_QUEUE_USED, 0xa000);
	vdrv_set(b->d, VDRV_QUEUE_READY, 1);
	vdrv_start(&b->v);
	rings = b->dev.rings;
	vdrv_set(b->d, VDRV_QUEUE_SEL, 1);
	vdrv_set(b->d, VDRV_QUEUE_READY, 0);
	cr_assert(!b->d->q[1].ready && b->d->q[0].ready);
	cr_assert_eq(b->dev.rings, rings + 1);
	bed_free(b);
}

/* Only the lowest bit of QUEUE_READY is there. */
Test(virtio_mmio, what_takes_a_queue_down_is_a_bit)
{
	struct bed *b = bed_new();
	unsigned int rings;

	vdrv_negotiate(b->d, 0);
	vdrv_set(b->d, VDRV_QUEUE_SEL, 1);
	vdrv_set(b->d, VDRV_QUEUE_NUM, 8);
	vdrv_set64(b->d, VDRV_QUEUE_DESC, 0x8000);
	vdrv_set64(b->d, VDRV_QUEUE_AVAIL, 0x9000);
	vdrv_set64(b->d, VDRV_QUEUE_USED, 0xa000);
	vdrv_set(b->d, VDRV_QUEUE_READY, 1);
	vdrv_start(&b->v);
	rings = b->dev.rings;
	vdrv_set(b->d, VDRV_QUEUE_SEL, 1);
	vdrv_set(b->d, VDRV_QUEUE_READY, 2);
	cr_assert(!b->d->q[1].ready && b->d->q[0].ready);
	cr_assert_eq(b->dev.rings, rings + 1);
	bed_free(b);
}

/* One vCPU takes a queue down, another one resets the device meanwhile: then it is reset. And nobody is
 * told anything of before. */
Test(virtio_mmio, a_reset_that_comes_meanwhile_is_done)
{
	struct bed *b = bed_new();
	unsigned int rings;

	vdrv_negotiate(b->d, 0);
	vdrv_start(&b->v);
	virtio_dev_interrupt(b->d, 0);
	rings = b->dev.rings;
	b->dev.other_resets = true;
	vdrv_set(b->d, VDRV_QUEUE_READY, 0);
	b->dev.other_resets = false;
	cr_assert_eq(b->dev.resets, 2, "one of them before negotiating");
	cr_assert_eq(vdrv_get(b->d, VDRV_STATUS), 0);
	cr_assert(!b->d->q[0].size && !b->d->drv_features);
	cr_assert_eq(b->dev.rings, rings);
	cr_assert_eq(vdrv_init(&b->v, b->d, &b->gm, 8, gpa(0x2000), 0), 15, "and again");
	bed_free(b);
}

Test(virtio_mmio, features_are_agreed_on_or_not)
{
	struct bed *b = bed_new();

	cr_assert_eq(vdrv_negotiate(b->d, F_A | F_B), 11);
	vdrv_set(b->d, VDRV_DRV_FEATURES, 0);
	cr_assert_eq(b->d->drv_features, F_A | F_B | VIRTIO_F_VERSION_1, "no change after that");
	cr_assert_eq(vdrv_negotiate(b->d, 1ULL << 5), 3, "a feature that was not offered");
	cr_assert_eq(vdrv_negotiate(b->d, 1ULL << 63), 3);
	cr_assert(!b->d->broken, "refusing is no fault");

	vdrv_set(b->d, VDRV_STATUS, 0);
	vdrv_set(b->d, VDRV_STATUS, 3);
	vdrv_set(b->d, VDRV_DRV_FEATURES, (uint32_t)F_A);
	vdrv_set(b->d, VDRV_STATUS, 11);
	cr_assert_eq(vdrv_get(b->d, VDRV_STATUS), 3, "without VERSION_1");

	vdrv_set(b->d, VDRV_DRV_FEATURES_SEL, 1);
	vdrv_set(b->d, VDRV_DRV_FEATURES, 1);
	vdrv_set(b->d, VDRV_DRV_FEATURES_SEL, 2);
	vdrv_set(b->d, VDRV_DRV_FEATURES, 1);
	vdrv_set(b->d, VDRV_STATUS, 11);
	cr_assert_eq(vdrv_get(b->d, VDRV_STATUS), 3, "a feature beyond 64");
	bed_free(b);
}

Test(virtio_mmio, status_out_of_turn_breaks_the_device)
{
	struct bed *b = bed_new();

	vdrv_set(b->d, VDRV_STATUS, VDRV_S_DRIVER);
	broke(b, "status DRIVER without ACKNOWLEDGE");
	b = bed_new();
	vdrv_set(b->d, VDRV_STATUS, VDRV_S_ACK | VDRV_S_FEATURES_OK);
	broke(b, "status FEATURES_OK without DRIVER");
	b = bed_new();
	vdrv_set(b->d, VDRV_STATUS, 7);
	broke(b, "status DRIVER_OK without features agreed on");
	b = bed_new();
	vdrv_negotiate(b->d, 1ULL << 5);
	vdrv_set(b->d, VDRV_STATUS, 15);
	broke(b, "status DRIVER_OK without features agreed on");
	b = bed_new();
	vdrv_negotiate(b->d, 0);
	vdrv_set(b->d, VDRV_STATUS, 3);
	broke(b, "driver took back a status bit without a reset");
}

Test(virtio_mmio, queues_out_of_turn_break_the_device)
{
	struct bed *b = bed_new();

	vdrv_set(b->d, VDRV_STATUS, 3);
	vdrv_set(b->d, VDRV_QUEUE_NUM, 4);
	vdrv_set(b->d, VDRV_QUEUE_READY, 1);
	broke(b, "queue enabled before features were agreed on");
	b = bed_new();
	vdrv_negotiate(b->d, 0);
	vdrv_start(&b->v);
	vdrv_set(b->d, VDRV_QUEUE_SEL, 1);
	vdrv_set(b->d, VDRV_QUEUE_READY, 1);
	broke(b, "queue enabled after DRIVER_OK");
	b = bed_new();
	vdrv_negotiate(b->d, 0);
	vdrv_set(b->d, VDRV_QUEUE_NUM, 0x10004);
	vdrv_set(b->d, VDRV_QUEUE_READY, 1);
	broke(b, "queue size is not a power of two within the limit");
	b = bed_new();
	vdrv_negotiate(b->d, 0);
	b->v.used.v = OB_MIB - 16;
	vdrv_start(&b->v);
	broke(b, "used ring is not inside RAM");
	b = bed_new();
	vdrv_set(b->d, VDRV_QUEUE_NOTIFY, 2);
	broke(b, "notification for a queue that there is not");
}

Test(virtio_mmio, the_first_reason_stays)
{
	struct bed *b = bed_new();

	vdrv_negotiate(b->d, 0);
	vdrv_start(&b->v);
	virtio_dev_fail(b->d, "first");
	virtio_dev_fail(b->d, "second");
	cr_assert_eq(vdrv_get(b->d, VDRV_IRQ_STATUS) & 2, 2, "the driver is told");
	vdrv_set(b->d, VDRV_QUEUE_NOTIFY, 0);
	cr_assert_eq(b->dev.rings, 0);
	broke(b, "first");
}

/* Random accesses: whatever the driver does, what is enabled lies in RAM. */
Test(virtio_mmio, random_accesses_keep_the_invariants)
{
	const unsigned int first_seed = 555;
	unsigned int seed = first_seed, was_live = 0;
	const uint32_t status[] = {1, 3, 11, 15, 15, 11, 3, 0};
	struct bed *b = bed_new();

	for (int i = 0; i < 400000; i++) {
		uint64_t reg = (uint64_t)(rand_r(&seed) % 0x110);
		uint32_t v = (uint32_t)rand_r(&seed) >> rand_r(&seed) % 32;

		switch (rand_r(&seed) % 8) {
		case 0:
			virtio_mmio_bus_ops.write(b->d, reg, 1U << rand_r(&seed) % 4, v);
			break;
		case 1:
			virtio_mmio_bus_ops.read(b->d, reg, 1U << rand_r(&seed) % 4);
			break;
		case 2:
			vdrv_set(b->d, VDRV_STATUS, status[(unsigned int)rand_r(&seed) % 8]);
			break;
		case 3:
			vdrv_negotiate(b->d, rand_r(&seed) % 3 ? 0 : v);
			break;
		case 4:
			if (rand_r(&seed) % 2)
				vdrv_start(&b->v);
			break;
		default:
			vdrv_set(b->d, reg & ~3ULL, v);
			break;
		}
		was_live += virtio_dev_live(b->d);
		for (unsigned int k = 0; k < 2; k++) {
			const struct virtq *q = &b->d->q[k];

			if (!q->ready)
				continue;
			cr_assert(q->size && q->size <= VIRTQ_MAX, "seed %u", first_seed);
			cr_assert(gmem_ptr(&b->gm, q->desc, 16ULL * q->size) &&
					  gmem_ptr(&b->gm, q->avail, 6 + 2ULL * q->size) &&
					  gmem_ptr(&b->gm, q->used, 6 + 8ULL * q->size),
				  "seed %u round %d", first_seed, i);
		}
		if (b->d->broken && rand_r(&seed) % 4 == 0)
			vdrv_set(b->d, VDRV_STATUS, 0);
	}
	cr_assert(was_live > 1000, "only %u", was_live);
	bed_free(b);
}
