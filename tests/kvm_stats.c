/* SPDX-License-Identifier: Apache-2.0 */
/* kvm_stats.c: what KVM counts of real guests, and how it gets into a result. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "tests/bed.h"

static uint64_t value_of(struct kvm_stats *s, const char *name)
{
	uint64_t v[KVM_STATS_MAX];

	cr_assert(!kvm_stats_read(s, v));
	for (unsigned int i = 0; i < s->n; i++)
		if (!strcmp(s->stat[i].name, name))
			return v[i];
	cr_assert(false, "KVM has no %s", name);
	return 0;
}

Test(kvm_stats, of_a_vm_and_its_vcpu, .timeout = 60)
{
	struct kvm_stats vms, vcpu;
	struct bed b;
	int r;

	NEED_KVM();
	bed_microguest(&b, (struct vm_config){
				   .mem_bytes = 16 * OB_MIB,
				   .cmdline = "workload=idle seed=1 common=1 guest=0",
				   .console_fd = -1,
			   });
	r = vm_stats_open(b.vm, -1, &vms);
	if (r == -EOPNOTSUPP)
		cr_skip_test("this KVM has no statistics (Linux 5.14)");
	cr_assert_eq(r, 0);
	cr_assert_eq(vm_stats_open(b.vm, 0, &vcpu), 0);
	cr_assert_eq(value_of(&vms, "pages_4k"), 0);
	cr_assert_eq(value_of(&vcpu, "exits"), 0);
	bed_start(&b);
	/* The guest says on the console that it is there: port accesses, so exits. */
	while (!value_of(&vcpu, "exits") || !value_of(&vms, "pages_4k"))
		cr_assert_eq(atomic_load(&b.vm->state), VM_RUNNING, "%s", b.vm->reason);
	kvm_stats_close(&vms);
	cr_assert_eq(vm_stats_open(b.vm, 1, &vms), -EINVAL);
	kvm_stats_close(&vcpu);
	bed_close(&b);
}

static size_t index_of(const json_t *names, const char *name)
{
	const json_t *n;
	size_t i;

	json_array_foreach (names, i, n)
		if (!strcmp(json_string_value(n), name))
			return i;
	cr_assert(false, "no %s", name);
	return 0;
}

/* Guests of two cells: a series each, from before the engine was on to the last reading. */
Test(kvm_stats, are_in_the_result, .timeout = 120)
{
	const json_t *run, *o, *t, *guests, *g, *series;
	struct cli c;
	size_t i;

	NEED_KVM();
	cli_run(&c,
		"fleet --guests 3 --mem 16M --cell 2 --workload kv --seconds 3 --sharing hash "
		"--quiet",
		true, 100);
	cr_assert_eq(c.status, 0, "%s", c.err);
	run = json_array_get(json_object_get(c.result, "runs"), 0);
	o = json_object_get(run, "kvm_stats");
	cr_assert(o);
	if (json_is_null(o))
		cr_skip_test("this KVM has no statistics (Linux 5.14)");
	t = json_object_get(o, "t");
	cr_assert_geq(json_array_size(t), 3);
	cr_assert_lt(json_real_value(json_array_get(t, 0)), 0);
	cr_assert_float_eq(json_real_value(json_array_get(t, json_array_size(t) - 1)),
			   json_real_value(json_object_get(run, "measured_seconds")), 1e-6,
			   "the last reading");
	guests = json_object_get(o, "guests");
	cr_assert_eq(json_array_size(guests), 3);
	json_array_foreach (guests, i, g) {
		json_int_t before = 0;
		const json_t *v;
		size_t k;

		cr_assert_eq(json_integer_value(json_object_get(g, "id")), (json_int_t)i);
		series = json_array_get(json_object_get(g, "vm"),
					index_of(json_object_get(o, "vm"), "pages_4k"));
		cr_assert_eq(json_array_size(series), json_array_size(t));
		cr_assert_gt(json_integer_value(json_array_get(series, json_array_size(t) - 1)), 0);
		series = json_array_get(json_array_get(json_object_get(g, "vcpu"), 0),
					index_of(json_object_get(o, "vcpu"), "exits"));
		cr_assert_eq(json_array_size(series), json_array_size(t));
		json_array_foreach (series, k, v) {
			cr_assert_geq(json_integer_value(v), before, "exits only grow");
			before = json_integer_value(v);
		}
		cr_assert_gt(before, 0);
	}
	cli_free(&c);
}
