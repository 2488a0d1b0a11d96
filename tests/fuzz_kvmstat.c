/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_kvmstat.c: libFuzzer target: any bytes as KVM's description of its statistics. What is
 * accepted must be as vm.h says, and its values must lie inside the block that it asks for.
 */
#include <stdlib.h>
#include <string.h>

#include "kernel/vm.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct kvm_stats s;
	uint64_t *values;
	void *block;

	if (kvm_stats_parse(data, len, &s))
		return 0;
	OB_ASSERT(s.n <= KVM_STATS_MAX && s.data_bytes <= KVM_STATS_MAX_BYTES &&
		  s.data_offset <= KVM_STATS_MAX_BYTES);
	/* Of exactly that size: the address sanitizer watches its ends. */
	block = calloc(1, s.data_bytes ? s.data_bytes : 1);
	values = malloc((s.n ? s.n : 1) * sizeof(*values));
	OB_ASSERT(block && values);
	kvm_stats_values(&s, block, values);
	for (unsigned int i = 0; i < s.n; i++) {
		const char *name = s.stat[i].name;

		OB_ASSERT(values[i] == 0 && memchr(name, '\0', KVM_STAT_NAME));
		for (; *name; name++)
			OB_ASSERT(*name > ' ' && *name < 0x7f);
	}
	free(values);
	free(block);
	kvm_stats_close(&s);
	return 0;
}
