/* SPDX-License-Identifier: Apache-2.0 */
/* coord_content.c: where the frames that the guests share come from, at the last reading. */
#include <limits.h>
#include <stdlib.h>

#include "harness/content.h"
#include "harness/coord.h"

/* The frames that guests' pages are on, with how many there are of each. */
static uint64_t held_frames(const struct coord *c, struct content_frame *list)
{
	uint32_t *pages = calloc(c->frames, sizeof(*pages));
	uint64_t n = 0;

	OB_ASSERT(pages);
	for (uint64_t p = 0; p < c->fleet_pages; p++) {
		uint64_t word = c->meter[p], f = KSM_METER_VALUE(word);

		if (KSM_METER_KIND(word) == KSM_METER_KIND(KSM_METER_FRAME) && f < c->frames)
			pages[f]++;
	}
	for (unsigned int i = 0; i < c->npools; i++) {
		const struct coord_pool *pool = &c->pool[i];

		for (uint64_t f = 0; f < pool->frames; f++)
			if (pages[pool->frame_base + f])
				list[n++] = (struct content_frame){
					.origin = ksm_domain_origin(pool->domain, (uint32_t)f),
					.pages = pages[pool->frame_base + f],
				};
	}
	free(pages);
	return n;
}

void coord_content(struct coord *c)
{
	struct content_file file[2 + LINUX_MAX_DISKS];
	char path[PATH_MAX];
	struct content_frame *list;
	unsigned int n = 0;

	c->out->ncontent = 0;
	if (!c->pooled)
		return;
	list = calloc(c->frames, sizeof(*list));
	OB_ASSERT(list);
	content_open(&file[n++], KSM_ORIGIN_KERNEL, c->cfg->kernel_path);
	if (c->cfg->image_path)
		content_open(&file[n++], KSM_ORIGIN_DISK, c->cfg->image_path);
	/* Of disks that each guest has for itself, the first guest's name stands for all. */
	for (unsigned int i = 0; i < c->cfg->lx.ndisks; i++) {
		linux_disk_path(c->cfg, i, 0, path, sizeof(path));
		content_open(&file[n++], KSM_ORIGIN_DISK, path);
	}
	c->out->ncontent = content_top(file, n, list, held_frames(c, list), c->out->content);
	while (n)
		content_close(&file[--n]);
	free(list);
}
