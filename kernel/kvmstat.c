/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvmstat.c: what KVM counts of a VM and of each vCPU (KVM_GET_STATS_FD, Linux 5.14;
 * Documentation/virt/kvm/api.rst, 4.133): exits, faults, pages mapped in each size, zapped,
 * flushed.
 *
 * KVM hands out a file that describes itself: a header, a descriptor a statistic (its name, kind,
 * and where its value lies), and a block of values. Names and places differ from kernel to kernel,
 * so nothing is known here but the layout; header and descriptors are read once, values again and
 * again with one pread.
 *
 * The descriptors are taken for data that may be anything: every offset and length is checked, in a
 * form that cannot wrap, before it is used. What is of a kind that is not known yet is left out.
 * Histograms (linear and logarithmic) become one value, the sum of their buckets: how many events
 * they have sorted.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "kernel/vcpu.h"
#include "kernel/vm.h"

static void take_name(char *to, const char *from, size_t max)
{
	size_t n = 0;

	for (; n < max && n < KVM_STAT_NAME - 1 && from[n]; n++)
		to[n] = from[n] > ' ' && from[n] < 0x7f ? from[n] : '?';
	to[n] = '\0';
}

/* False: of a kind that we do not know. */
static bool take_kind(const struct kvm_stats_desc *d, struct kvm_stat *s)
{
	switch (d->flags & KVM_STATS_TYPE_MASK) {
	case KVM_STATS_TYPE_CUMULATIVE:
		s->kind = KVM_STAT_CUMULATIVE;
		break;
	case KVM_STATS_TYPE_INSTANT:
		s->kind = KVM_STAT_INSTANT;
		break;
	case KVM_STATS_TYPE_PEAK:
		s->kind = KVM_STAT_PEAK;
		break;
	case KVM_STATS_TYPE_LINEAR_HIST:
	case KVM_STATS_TYPE_LOG_HIST:
		s->kind = KVM_STAT_EVENTS;
		return d->size > 0;
	default:
		return false;
	}
	return d->size == 1;
}

/* Where the descriptors end, or 0 when the header makes no sense. */
static size_t descs_end(const struct kvm_stats_header *h)
{
	uint64_t stride = sizeof(struct kvm_stats_desc) + (uint64_t)h->name_size;

	if (!h->name_size || h->name_size > KVM_STATS_MAX_NAME || h->num_desc > KVM_STATS_MAX ||
	    h->desc_offset < sizeof(*h) || h->desc_offset > KVM_STATS_MAX_BYTES ||
	    h->data_offset > KVM_STATS_MAX_BYTES)
		return 0;
	return h->desc_offset + h->num_desc * stride;
}

int kvm_stats_parse(const void *buf, size_t len, struct kvm_stats *out)
{
	const uint8_t *bytes = buf;
	struct kvm_stats_header h;
	size_t end;

	*out = (struct kvm_stats){.fd = -1};
	if (len < sizeof(h))
		return -EPROTO;
	memcpy(&h, buf, sizeof(h));
	end = descs_end(&h);
	if (!end || end > len)
		return -EPROTO;
	out->stat = calloc(h.num_desc ? h.num_desc : 1, sizeof(*out->stat));
	OB_ASSERT(out->stat);
	out->data_offset = h.data_offset;
	for (uint32_t i = 0; i < h.num_desc; i++) {
		struct kvm_stat *s = &out->stat[out->n];
		size_t at = h.desc_offset + i * (sizeof(struct kvm_stats_desc) + h.name_size);
		struct kvm_stats_desc d;
		uint64_t last;

		memcpy(&d, bytes + at, sizeof(d));
		if (!take_kind(&d, s))
			continue;
		last = (uint64_t)d.offset + (uint64_t)d.size * sizeof(uint64_t);
		if (last > KVM_STATS_MAX_BYTES) {
			kvm_stats_close(out);
			return -EPROTO;
		}
		take_name(s->name, (const char *)bytes + at + sizeof(d), h.name_size);
		s->offset = d.offset;
		s->values = d.size;
		out->data_bytes = OB_MAX(out->data_bytes, (uint32_t)last);
		out->n++;
	}
	return 0;
}

void kvm_stats_values(const struct kvm_stats *s, const void *data, uint64_t *values)
{
	for (unsigned int i = 0; i < s->n; i++) {
		const uint8_t *at = (const uint8_t *)data + s->stat[i].offset;
		uint64_t v;

		values[i] = 0;
		for (uint32_t k = 0; k < s->stat[i].values; k++) {
			memcpy(&v, at + k * sizeof(v), sizeof(v));
			values[i] += v;
		}
	}
}

/* All of @len bytes, or -errno. */
static int read_all(int fd, void *buf, size_t len, uint64_t off)
{
	for (size_t done = 0; done < len;) {
		ssize_t r = pread(fd, (uint8_t *)buf + done, len - done, (off_t)(off + done));

		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return r < 0 ? -errno : -EPROTO;
		done += (size_t)r;
	}
	return 0;
}

static int read_descs(int fd, struct kvm_stats *out)
{
	struct kvm_stats_header h;
	void *buf = NULL;
	size_t end = 0;
	int r = read_all(fd, &h, sizeof(h), 0);

	if (!r) {
		end = descs_end(&h);
		r = end ? 0 : -EPROTO;
	}
	if (!r) {
		buf = malloc(end);
		OB_ASSERT(buf);
		r = read_all(fd, buf, end, 0);
	}
	if (!r)
		r = kvm_stats_parse(buf, end, out);
	free(buf);
	return r;
}

int vm_stats_open(struct vm *vm, int vcpu, struct kvm_stats *out)
{
	int fd, r;

	*out = (struct kvm_stats){.fd = -1};
	if (vcpu >= (int)vm->nvcpus)
		return -EINVAL;
	fd = ioctl(vcpu < 0 ? vm->fd : vm->vcpu[vcpu].fd, KVM_GET_STATS_FD, 0);
	if (fd < 0)
		return errno == ENOTTY || errno == EINVAL ? -EOPNOTSUPP : -errno;
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	r = read_descs(fd, out);
	if (r) {
		close(fd);
		return r;
	}
	out->fd = fd;
	out->data = malloc(out->data_bytes ? out->data_bytes : 1);
	OB_ASSERT(out->data);
	return 0;
}

int kvm_stats_read(struct kvm_stats *s, uint64_t *values)
{
	int r = read_all(s->fd, s->data, s->data_bytes, s->data_offset);

	if (!r)
		kvm_stats_values(s, s->data, values);
	return r;
}

void kvm_stats_close(struct kvm_stats *s)
{
	if (s->fd >= 0)
		close(s->fd);
	free(s->stat);
	free(s->data);
	*s = (struct kvm_stats){.fd = -1};
}
