/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kvm_vm.c: virtual machines through the library: parking, stopping, two guests on one host frame,
 * and disk reads that are on their way while their target is being merged.
 */
#include <string.h>

#include "tests/rig.h"

Test(vm, parked_guest_stands_still, .timeout = 60)
{
	struct agent_report a, b;
	struct rig r;

	NEED_KVM();
	rig_make(&r, "kv");
	rig_start(&r);
	vm_park(r.vm[0]);
	vm_park(r.vm[0]); /* parks nest */
	vm_unpark(r.vm[0]);
	a = rig_report(&r, 0);
	rig_nap_ms(100);
	b = rig_report(&r, 0);
	cr_assert(!memcmp(&a, &b, sizeof(a)), "a parked guest has written");
	vm_unpark(r.vm[0]);
	for (int i = 0; i < 1000 && rig_report(&r, 0).heartbeat == b.heartbeat; i++)
		rig_nap_ms(5);
	cr_assert_gt(rig_report(&r, 0).heartbeat, b.heartbeat, "it did not go on");
	rig_unmake(&r);
}

Test(vm, parks_and_releases_ten_thousand_times, .timeout = 120)
{
	uint64_t before;
	struct rig r;

	NEED_KVM();
	rig_make(&r, "kv");
	rig_start(&r);
	before = rig_report(&r, 0).heartbeat;
	for (int i = 0; i < 10000; i++) {
		vm_park(r.vm[i % RIG_GUESTS]);
		vm_unpark(r.vm[i % RIG_GUESTS]);
	}
	for (int i = 0; i < 1000 && rig_report(&r, 0).heartbeat == before; i++)
		rig_nap_ms(5);
	cr_assert_gt(rig_report(&r, 0).heartbeat, before);
	rig_unmake(&r);
}

Test(vm, stops_while_parked_and_while_asleep, .timeout = 60)
{
	struct rig r;

	NEED_KVM();
	rig_make(&r, "idle");
	rig_start(&r);
	vm_park(r.vm[0]);
	vm_stop(r.vm[0]); /* must not wait for the release */
	vm_unpark(r.vm[0]);
	vm_stop(r.vm[1]);
	vm_stop(r.vm[1]); /* twice is fine */
	rig_unmake(&r);
}

/* Two guests share a page: one host frame. One writes: the other does not see it. */
Test(vm, shared_page_is_one_host_frame, .timeout = 60)
{
	struct ob_page a, b;
	uint8_t before[OB_PAGE_SIZE], other[OB_PAGE_SIZE];
	uint64_t pa = UINT64_MAX, pb = 0, pages = RIG_MEM / OB_PAGE_SIZE;
	struct rig r;
	hva_t at[2];

	NEED_KVM();
	rig_make(&r, "idle");
	rig_start(&r);
	if (!r.host.knows_pfn)
		cr_skip_test("host frame numbers need CAP_SYS_ADMIN");
	rig_scan_for(&r, 1500);
	for (int i = 0; i < RIG_GUESTS; i++)
		vm_park(r.vm[i]);
	for (uint64_t p = 0; p < pages && pa == UINT64_MAX; p++) {
		uint32_t f = ept_frame_of(&r.ept[0], p);

		for (uint64_t q = 0; f != EPT_NO_FRAME && q < pages; q++)
			if (ept_frame_of(&r.ept[1], q) == f) {
				pa = p;
				pb = q;
				break;
			}
	}
	cr_assert_neq(pa, UINT64_MAX, "no page is shared");
	at[0] = gmem_page_hva(&r.vm[0]->mem, pa);
	at[1] = gmem_page_hva(&r.vm[1]->mem, pb);
	memcpy(before, hva_ptr(at[0]), OB_PAGE_SIZE);
	cr_assert(!memcmp(before, hva_ptr(at[1]), OB_PAGE_SIZE));
	cr_assert(!r.host.ops->pages(&r.host, at[0], 1, &a));
	cr_assert(!r.host.ops->pages(&r.host, at[1], 1, &b));
	cr_assert(a.present && a.file && a.pfn);
	cr_assert_eq(a.pfn, b.pfn, "one page, two host frames");

	/* A write as a device does it, with the first byte changed. */
	other[0] = (uint8_t)~before[0];
	cr_assert(!gmem_write(&r.vm[0]->mem, gfn_gpa(gmem_page_gfn(&r.vm[0]->mem, pa)), other, 1));
	cr_assert(!r.host.ops->pages(&r.host, at[0], 1, &a));
	cr_assert_neq(a.pfn, b.pfn, "the write went to the shared frame");
	cr_assert_eq(*(uint8_t *)hva_ptr(at[0]), other[0]);
	cr_assert(!memcmp(before, hva_ptr(at[1]), OB_PAGE_SIZE), "the other guest sees the write");
	cr_assert(!ept_sync(&r.ept[0], pa, 1, NULL));
	cr_assert_eq(ept_state_of(&r.ept[0], pa), EPT_PRIVATE);
	/* As it was, before the guest looks. */
	cr_assert(!gmem_write(&r.vm[0]->mem, gfn_gpa(gmem_page_gfn(&r.vm[0]->mem, pa)), before, 1));
	for (int i = 0; i < RIG_GUESTS; i++)
		vm_unpark(r.vm[i]);
	rig_unmake(&r);
}

/* Guests read files again and again into memory that is being merged,
 * each read held up half way. */
Test(vm, disk_reads_in_flight_while_merging, .timeout = 120)
{
	struct ept_stats st;
	uint64_t met = 0, disk[RIG_GUESTS];
	struct ksm_stats k;
	struct rig r;

	NEED_KVM();
	/* Told what was written, the scanner waits until reads are over, and they hardly ever meet. */
	rig_make_opts(&r, &(struct rig_opts){.workload = "filecache", .untracked = true});
	rig_start(&r);
	for (unsigned int i = 0; i < RIG_GUESTS; i++) {
		atomic_store(&r.vm[i]->disk[0].delay_ns, 2 * OB_NS_PER_MS);
		disk[i] = rig_report(&r, i).disk_pages;
	}
	/* Until merging and reading have met: pages left out of a freeze, or reads that waited for
	 * one. And at least for a while. */
	for (int i = 0; i < 60 && (i < 6 || met < 3); i++) {
		rig_scan_for(&r, 500);
		met = 0;
		for (unsigned int g = 0; g < RIG_GUESTS; g++) {
			ept_read_stats(&r.ept[g], &st);
			met += st.dma_left_out + st.dma_waits;
		}
	}
	cr_assert_gt(met, 0, "no read was ever under way in a frozen range");
	ksm_read_stats(r.k, &k);
	cr_assert_gt(k.merged_pages, 500);
	for (unsigned int i = 0; i < RIG_GUESTS; i++) {
		cr_assert_gt(rig_report(&r, i).disk_pages, disk[i]);
		atomic_store(&r.vm[i]->disk[0].delay_ns, 0);
	}
	/* Let the guests look at what they have got. */
	rig_nap_ms(1000);
	rig_unmake(&r);
}
