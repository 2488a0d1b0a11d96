/* SPDX-License-Identifier: Apache-2.0 */
/* virtio_driver.c: see virtio_driver.h. */
#include "tests/virtio_driver.h"

#include <string.h>
#include <time.h>

uint32_t vdrv_get(struct virtio_dev *d, uint64_t reg)
{
	return (uint32_t)virtio_mmio_bus_ops.read(d, reg, 4);
}

void vdrv_set(struct virtio_dev *d, uint64_t reg, uint32_t v)
{
	virtio_mmio_bus_ops.write(d, reg, 4, v);
}

void vdrv_set64(struct virtio_dev *d, uint64_t reg, uint64_t v)
{
	vdrv_set(d, reg, (uint32_t)v);
	vdrv_set(d, reg + 4, (uint32_t)(v >> 32));
}

static void put(struct gmem *mem, uint64_t at, const void *buf, uint64_t len)
{
	int rc = gmem_write(mem, gpa(at), buf, len);

	OB_ASSERT(!rc);
}

static void get(struct gmem *mem, uint64_t at, void *buf, uint64_t len)
{
	int rc = gmem_read(mem, gpa(at), buf, len);

	OB_ASSERT(!rc);
}

void vdrv_layout(struct vdrv *v, struct virtio_dev *d, struct gmem *mem, uint16_t size, gpa_t base)
{
	static const char zero[16 * VIRTQ_MAX];

	*v = (struct vdrv){.d = d, .mem = mem, .size = size};
	v->desc = base;
	v->avail = gpa(base.v + 16ULL * size);
	v->used = gpa(ob_align_up(v->avail.v + 6 + 2ULL * size, 4));
	put(mem, v->desc.v, zero, 16ULL * size);
	put(mem, v->avail.v, zero, 6 + 2ULL * size);
	put(mem, v->used.v, zero, 6 + 8ULL * size);
}

uint32_t vdrv_negotiate(struct virtio_dev *d, uint64_t features)
{
	features |= VIRTIO_F_VERSION_1;
	vdrv_set(d, VDRV_STATUS, 0);
	vdrv_set(d, VDRV_STATUS, VDRV_S_ACK);
	vdrv_set(d, VDRV_STATUS, VDRV_S_ACK | VDRV_S_DRIVER);
	vdrv_set(d, VDRV_DRV_FEATURES_SEL, 0);
	vdrv_set(d, VDRV_DRV_FEATURES, (uint32_t)features);
	vdrv_set(d, VDRV_DRV_FEATURES_SEL, 1);
	vdrv_set(d, VDRV_DRV_FEATURES, (uint32_t)(features >> 32));
	vdrv_set(d, VDRV_STATUS, VDRV_S_ACK | VDRV_S_DRIVER | VDRV_S_FEATURES_OK);
	return vdrv_get(d, VDRV_STATUS);
}

void vdrv_setup(struct vdrv *v)
{
	vdrv_set(v->d, VDRV_QUEUE_SEL, v->queue);
	vdrv_set(v->d, VDRV_QUEUE_NUM, v->size);
	vdrv_set64(v->d, VDRV_QUEUE_DESC, v->desc.v);
	vdrv_set64(v->d, VDRV_QUEUE_AVAIL, v->avail.v);
	vdrv_set64(v->d, VDRV_QUEUE_USED, v->used.v);
	vdrv_set(v->d, VDRV_QUEUE_READY, 1);
}

uint32_t vdrv_start(struct vdrv *v)
{
	vdrv_setup(v);
	vdrv_set(v->d, VDRV_STATUS, vdrv_get(v->d, VDRV_STATUS) | VDRV_S_DRIVER_OK);
	return vdrv_get(v->d, VDRV_STATUS);
}

uint32_t vdrv_init(struct vdrv *v, struct virtio_dev *d, struct gmem *mem, uint16_t size,
		   gpa_t base, uint64_t features)
{
	/* Reset first: the device may still be using the old rings. */
	vdrv_set(d, VDRV_STATUS, 0);
	vdrv_layout(v, d, mem, size, base);
	vdrv_negotiate(d, features);
	return vdrv_start(v);
}

void vdrv_desc(struct vdrv *v, gpa_t table, unsigned int i, uint64_t addr, uint32_t len,
	       uint16_t flags, uint16_t next)
{
	struct {
		uint64_t addr;
		uint32_t len;
		uint16_t flags, next;
	} d = {addr, len, flags, next};

	put(v->mem, table.v + 16ULL * i, &d, sizeof(d));
}

void vdrv_set_avail_idx(struct vdrv *v, uint16_t idx)
{
	v->next_avail = idx;
	/* Release: all that was written before is seen before the index. */
	__atomic_store_n((uint16_t *)gmem_ptr(v->mem, gpa(v->avail.v + 2), 2), idx,
			 __ATOMIC_RELEASE);
}

void vdrv_set_avail_flags(struct vdrv *v, uint16_t flags)
{
	put(v->mem, v->avail.v, &flags, sizeof(flags));
}

void vdrv_offer(struct vdrv *v, uint16_t head)
{
	put(v->mem, v->avail.v + 4 + 2ULL * (v->next_avail % v->size), &head, sizeof(head));
	vdrv_set_avail_idx(v, (uint16_t)(v->next_avail + 1));
}

void vdrv_kick(struct vdrv *v)
{
	vdrv_set(v->d, VDRV_QUEUE_NOTIFY, v->queue);
}

bool vdrv_used(struct vdrv *v, uint32_t *id, uint32_t *len)
{
	uint32_t el[2];
	uint16_t idx = __atomic_load_n((uint16_t *)gmem_ptr(v->mem, gpa(v->used.v + 2), 2),
				       __ATOMIC_ACQUIRE);

	if (idx == v->last_used)
		return false;
	get(v->mem, v->used.v + 4 + 8ULL * (v->last_used % v->size), el, sizeof(el));
	*id = el[0];
	*len = el[1];
	v->last_used++;
	return true;
}

bool vdrv_wait_used(struct vdrv *v, uint32_t *id, uint32_t *len)
{
	struct timespec ms = {.tv_nsec = 200000};

	for (unsigned int i = 0; i < 100000; i++) {
		if (vdrv_used(v, id, len))
			return true;
		nanosleep(&ms, NULL);
	}
	return false;
}
