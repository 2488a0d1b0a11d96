/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pure_kvmstat.c: reading the file in which KVM describes its statistics (any layout, any
 * nonsense), and the time series of them in a result.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>

#include "harness/result.h"
#include "kernel/vm.h"

#define ROOM 8192

/* A file in the making: descriptors at random places, with gaps, in any order. */
struct file {
	uint8_t byte[ROOM];
	struct kvm_stats_header h;
	size_t len;
};

static void begin(struct file *f, uint32_t name_size, uint32_t ndesc, uint32_t desc_offset,
		  uint32_t data_offset)
{
	memset(f, 0xee, sizeof(*f));
	f->h = (struct kvm_stats_header){
		.name_size = name_size,
		.num_desc = ndesc,
		.id_offset = sizeof(f->h),
		.desc_offset = desc_offset,
		.data_offset = data_offset,
	};
	memcpy(f->byte, &f->h, sizeof(f->h));
	f->len = desc_offset + ndesc * (sizeof(struct kvm_stats_desc) + name_size);
	cr_assert_leq(f->len, ROOM);
}

static void put_desc(struct file *f, uint32_t i, uint32_t flags, uint16_t size, uint32_t offset,
		     const char *name)
{
	struct kvm_stats_desc d = {.flags = flags, .size = size, .offset = offset};
	size_t at = f->h.desc_offset + i * (sizeof(d) + f->h.name_size);

	memcpy(f->byte + at, &d, sizeof(d));
	memset(f->byte + at + sizeof(d), 0, f->h.name_size);
	memcpy(f->byte + at + sizeof(d), name, OB_MIN(strlen(name), (size_t)f->h.name_size));
}

Test(kvmstat, a_file_is_understood)
{
	uint64_t data[40] = {0}, v[5];
	struct kvm_stats s;
	struct file f;

	begin(&f, 16, 6, 96, 500);
	put_desc(&f, 0, KVM_STATS_TYPE_CUMULATIVE, 1, 8, "exits");
	put_desc(&f, 1, KVM_STATS_TYPE_INSTANT | KVM_STATS_UNIT_BOOLEAN, 1, 0, "guest_mode");
	put_desc(&f, 2, KVM_STATS_TYPE_LOG_HIST | KVM_STATS_UNIT_SECONDS, 32, 24, "wait_hist");
	put_desc(&f, 3, 9, 1, UINT32_MAX, "of a kind to come");
	put_desc(&f, 4, KVM_STATS_TYPE_PEAK, 1, 16, "a name of 16 \xff\nz");
	put_desc(&f, 5, KVM_STATS_TYPE_LINEAR_HIST, 3, 280, "lin");
	cr_assert(!kvm_stats_parse(f.byte, f.len, &s));
	cr_assert_eq(s.n, 5);
	cr_assert_eq(s.fd, -1);
	cr_assert_eq(s.data_offset, 500);
	cr_assert_eq(s.data_bytes, 280 + 24);
	cr_assert_str_eq(s.stat[0].name, "exits");
	cr_assert_eq(s.stat[0].kind, KVM_STAT_CUMULATIVE);
	cr_assert_eq(s.stat[1].kind, KVM_STAT_INSTANT);
	cr_assert_eq(s.stat[2].kind, KVM_STAT_EVENTS);
	cr_assert_eq(s.stat[3].kind, KVM_STAT_PEAK);
	cr_assert_str_eq(s.stat[3].name, "a?name?of?16???z", "no end, and not for a terminal");

	data[0] = 1;
	data[1] = UINT64_MAX;
	data[2] = 7;
	for (int i = 0; i < 32; i++)
		data[3 + i] = (uint64_t)i;
	data[35] = data[36] = data[37] = 10;
	kvm_stats_values(&s, data, v);
	cr_assert(v[0] == UINT64_MAX && v[1] == 1 && v[2] == 31 * 32 / 2 && v[3] == 7 &&
		  v[4] == 30);
	kvm_stats_close(&s);
	cr_assert_null(s.stat);
}

Test(kvmstat, nonsense_is_refused)
{
	struct kvm_stats s;
	struct file f;

	begin(&f, 16, 2, 24, 0);
	put_desc(&f, 0, KVM_STATS_TYPE_INSTANT, 1, 0, "a");
	put_desc(&f, 1, KVM_STATS_TYPE_INSTANT, 1, KVM_STATS_MAX_BYTES - 8, "b");
	cr_assert(!kvm_stats_parse(f.byte, f.len, &s));
	kvm_stats_close(&s);
	for (size_t len = 0; len < f.len; len++) {
		/* Of exactly that length, for the address sanitizer. */
		uint8_t *cut = malloc(len ? len : 1);

		memcpy(cut, f.byte, len);
		cr_assert_eq(kvm_stats_parse(cut, len, &s), -EPROTO, "cut at %zu", len);
		free(cut);
	}
	put_desc(&f, 1, KVM_STATS_TYPE_INSTANT, 1, KVM_STATS_MAX_BYTES - 7, "b");
	cr_assert_eq(kvm_stats_parse(f.byte, f.len, &s), -EPROTO);
	put_desc(&f, 1, KVM_STATS_TYPE_LOG_HIST, UINT16_MAX, UINT32_MAX, "b");
	cr_assert_eq(kvm_stats_parse(f.byte, f.len, &s), -EPROTO);
	put_desc(&f, 1, KVM_STATS_TYPE_INSTANT, 2, 0, "of two values");
	cr_assert(!kvm_stats_parse(f.byte, f.len, &s));
	cr_assert_eq(s.n, 1);
	kvm_stats_close(&s);

	for (int i = 0; i < 6; i++) {
		struct kvm_stats_header bad[] = {f.h, f.h, f.h, f.h, f.h, f.h};

		bad[0].name_size = 0;
		bad[1].name_size = KVM_STATS_MAX_NAME + 1;
		bad[2].num_desc = KVM_STATS_MAX + 1;
		bad[3].desc_offset = sizeof(f.h) - 1;
		bad[4].desc_offset = UINT32_MAX;
		bad[5].data_offset = UINT32_MAX;
		memcpy(f.byte, &bad[i], sizeof(f.h));
		cr_assert_eq(kvm_stats_parse(f.byte, sizeof(f.byte), &s), -EPROTO, "header %d", i);
	}
	begin(&f, 1, 0, 24, 0);
	cr_assert(!kvm_stats_parse(f.byte, f.len, &s), "nothing is no nonsense");
	cr_assert_eq(s.n, 0);
	kvm_stats_close(&s);
}

/* Random layouts agree with what was written; random bytes harm nobody. */
Test(kvmstat, random_layouts)
{
	unsigned int seed = 41;
	struct kvm_stats s;
	struct file f;

	for (int round = 0; round < 2000; round++) {
		uint32_t n = (uint32_t)rand_r(&seed) % 20;
		uint32_t name = 1 + (uint32_t)rand_r(&seed) % 80, kept = 0;
		uint64_t data[64], v[20], want[20];

		begin(&f, name, n, 24 + (uint32_t)rand_r(&seed) % 100,
		      (uint32_t)rand_r(&seed) % 9999);
		for (int i = 0; i < 64; i++)
			data[i] = (uint64_t)rand_r(&seed) << 32 | (uint64_t)rand_r(&seed);
		for (uint32_t i = 0; i < n; i++) {
			uint32_t type = (uint32_t)rand_r(&seed) % 7;
			uint16_t size = (uint16_t)(rand_r(&seed) % 4);
			/* Any alignment. */
			uint32_t at = (uint32_t)rand_r(&seed) % (sizeof(data) - 3 * 8 + 1);
			uint64_t one;

			put_desc(&f, i, type, size, at, "x");
			if (type > 4 || (type < 3 ? size != 1 : !size))
				continue;
			want[kept] = 0;
			for (int k = 0; k < size; k++) {
				memcpy(&one, (uint8_t *)data + at + k * 8, 8);
				want[kept] += one;
			}
			kept++;
		}
		cr_assert(!kvm_stats_parse(f.byte, f.len, &s), "seed 41, round %d", round);
		cr_assert_eq(s.n, kept);
		cr_assert_leq(s.data_bytes, sizeof(data));
		kvm_stats_values(&s, data, v);
		for (uint32_t i = 0; i < kept; i++)
			cr_assert_eq(v[i], want[i], "seed 41, round %d", round);
		kvm_stats_close(&s);

		for (int i = 0; i < 8; i++)
			f.byte[(uint32_t)rand_r(&seed) % f.len] = (uint8_t)rand_r(&seed);
		if (!kvm_stats_parse(f.byte, f.len, &s))
			kvm_stats_close(&s);
	}
}

/* --- in a result ----------------------------------------------------------------------------- */

/* What a cell says of two guests, of one vCPU each. */
static json_t *answer(int first, int a, int b)
{
	return json_pack("{s:[s,s],s:[s],s:[{s:i,s:[i,i],s:[[i]]},{s:i,s:[i,i],s:[[i]]}]}", "vm",
			 "pages_4k", "never", "vcpu", "exits", "guests", "id", first, "vm", a, 0,
			 "vcpu", a + 1, "id", first + 1, "vm", b, 0, "vcpu", b + 1);
}

static void take(struct result_kvmstat *k, int first, int a, int b)
{
	json_t *o = answer(first, a, b);

	cr_assert(o);
	result_kvmstat_take(k, o);
	json_decref(o);
}

static json_int_t at3(const json_t *o, size_t a, size_t b)
{
	return json_integer_value(json_array_get(json_array_get(o, a), b));
}

Test(kvmstat_series, two_cells_two_readings)
{
	struct result_kvmstat *k = result_kvmstat_new(4);
	const json_t *guests, *g;
	json_t *o;

	result_kvmstat_take(k, NULL); /* not asked, or none */
	take(k, 0, 10, 20);
	take(k, 2, 30, 40);
	result_kvmstat_end(k, 0.5);
	take(k, 0, 11, 21); /* the second cell is lost */
	result_kvmstat_end(k, 1.5);
	result_kvmstat_shift(k, 1.0);
	o = result_kvmstat_json(k);
	cr_assert(o);
	cr_assert_float_eq(json_real_value(json_array_get(json_object_get(o, "t"), 0)), -0.5, 1e-9);
	cr_assert_float_eq(json_real_value(json_array_get(json_object_get(o, "t"), 1)), 0.5, 1e-9);
	cr_assert_eq(json_array_size(json_object_get(o, "vm")), 1);
	cr_assert_str_eq(json_string_value(json_array_get(json_object_get(o, "vm"), 0)),
			 "pages_4k");
	cr_assert_str_eq(json_string_value(json_array_get(json_object_get(o, "zero"), 0)), "never");
	cr_assert_str_eq(json_string_value(json_array_get(json_object_get(o, "vcpu"), 0)), "exits");
	guests = json_object_get(o, "guests");
	cr_assert_eq(json_array_size(guests), 4);
	g = json_array_get(guests, 1);
	cr_assert_eq(json_integer_value(json_object_get(g, "id")), 1);
	cr_assert_eq(at3(json_object_get(g, "vm"), 0, 0), 20);
	cr_assert_eq(at3(json_object_get(g, "vm"), 0, 1), 21);
	cr_assert_eq(at3(json_array_get(json_object_get(g, "vcpu"), 0), 0, 1), 22);
	g = json_array_get(guests, 3);
	cr_assert_eq(at3(json_object_get(g, "vm"), 0, 0), 40);
	cr_assert(json_is_null(json_array_get(json_array_get(json_object_get(g, "vm"), 0), 1)));
	json_decref(o);
	result_kvmstat_free(k);
}

Test(kvmstat_series, a_kvm_that_has_none_shows_nothing)
{
	struct result_kvmstat *k = result_kvmstat_new(2);

	cr_assert(json_is_null(result_kvmstat_json(NULL)));
	result_kvmstat_take(k, NULL);
	result_kvmstat_end(k, 1);
	cr_assert(json_is_null(result_kvmstat_json(k)));
	result_kvmstat_free(k);
	result_kvmstat_free(NULL);
}

/* An answer that is not as the first one was is left out, whatever it is. */
Test(kvmstat_series, answers_that_do_not_fit_are_left_out)
{
	struct result_kvmstat *k = result_kvmstat_new(2);
	static const char *const odd[] = {
		"{}",
		"[]",
		"{\"vm\":[\"pages_4k\"],\"vcpu\":[\"exits\"],\"guests\":[]}",
		"{\"vm\":[\"pages_4k\",\"never\"],\"vcpu\":[\"exits\"],\"guests\":[{\"id\":7,"
		"\"vm\":[1,2],\"vcpu\":[[3]]}]}",
		"{\"vm\":[\"pages_4k\",\"never\"],\"vcpu\":[\"exits\"],\"guests\":[{\"id\":1,"
		"\"vm\":[1],\"vcpu\":[[3]]}]}",
		"{\"vm\":[\"pages_4k\",\"never\"],\"vcpu\":[\"exits\"],\"guests\":[{\"id\":1,"
		"\"vm\":[1,2],\"vcpu\":[[3],[4]]}]}",
	};
	json_t *o;

	take(k, 0, 1, 2);
	result_kvmstat_end(k, 0);
	for (size_t i = 0; i < OB_ARRAY_SIZE(odd); i++) {
		json_t *a = json_loads(odd[i], 0, NULL);

		cr_assert(a);
		result_kvmstat_take(k, a);
		json_decref(a);
	}
	result_kvmstat_end(k, 1);
	o = result_kvmstat_json(k);
	cr_assert_eq(json_array_size(json_object_get(o, "t")), 1, "nobody has said anything");
	json_decref(o);
	result_kvmstat_free(k);
}

/* A long run: a reading a second at first, then fewer; the last one is always there. */
Test(kvmstat_series, a_long_run_is_thinned_out)
{
	struct result_kvmstat *k = result_kvmstat_new(2);
	uint64_t asked = 0;
	double last, before;
	const json_t *t;
	json_t *o;

	for (uint64_t ms = 0; ms < 5000 * 1000; ms += 250) {
		if (!result_kvmstat_due(k, ms * OB_NS_PER_MS, false))
			continue;
		asked++;
		take(k, 0, (int)ms, 1);
		result_kvmstat_end(k, (double)ms / 1000);
	}
	cr_assert(result_kvmstat_due(k, 5000 * OB_NS_PER_SEC, true), "the last reading");
	take(k, 0, 5000 * 1000, 1);
	result_kvmstat_end(k, 5000);
	o = result_kvmstat_json(k);
	t = json_object_get(o, "t");
	cr_assert_leq(json_array_size(t), RESULT_KVMSTAT_READINGS);
	cr_assert_geq(json_array_size(t), RESULT_KVMSTAT_READINGS / 4);
	cr_assert_lt(asked, 5000, "no more often than is kept");
	cr_assert_eq(json_real_value(json_array_get(t, 0)), 0);
	before = -1;
	for (size_t i = 0; i < json_array_size(t); i++) {
		last = json_real_value(json_array_get(t, i));
		cr_assert_gt(last, before);
		cr_assert_eq(
			at3(json_object_get(json_array_get(json_object_get(o, "guests"), 0), "vm"),
			    0, i),
			(json_int_t)(last * 1000));
		before = last;
	}
	cr_assert_eq(before, 5000);
	json_decref(o);
	result_kvmstat_free(k);
}
