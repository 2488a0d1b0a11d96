/* SPDX-License-Identifier: Apache-2.0 */
/*
 * coord_setup.c: everything that a fleet needs before its first guest runs: what the cells share, the
 * cells, and the guests in them.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "harness/control.h"
#include "harness/coord.h"
#include "harness/proto.h"

#define SETUP_TIMEOUT_MS 120000

/* The account of CPU time that the scanners of all cells spend from. */
static int setup_budget(struct coord *c, struct ob_err *e)
{
	struct ob_host *h = &c->host;
	void *p;
	int r;

	c->budget_fd = h->ops->memfd(h, "ob:budget", OB_PAGE_SIZE);
	if (c->budget_fd < 0)
		return ob_fail(e, -c->budget_fd, "CPU budget: %s", strerror(-c->budget_fd));
	r = h->ops->map_shared(h, c->budget_fd, OB_PAGE_SIZE, &p);
	if (r)
		return ob_fail(e, -r, "CPU budget: %s", strerror(-r));
	c->budget = p;
	ksm_budget_init(c->budget, c->cfg->ksm_cpu_percent, h->ops->now_ns(h));
	return 0;
}

static int setup_shared(struct coord *c, struct ob_err *e)
{
	struct ob_host *h = &c->host;
	uint64_t size;
	void *p;
	int r;

	size = cell_meter_size(c->fleet_pages, c->frames);
	c->meter_fd = h->ops->memfd(h, "ob:meter", size);
	if (c->meter_fd < 0)
		return ob_fail(e, -c->meter_fd, "meter: %s", strerror(-c->meter_fd));
	r = h->ops->map_shared(h, c->meter_fd, size, &p);
	if (r)
		return ob_fail(e, -r, "meter: %s", strerror(-r));
	c->meter = p;
	c->frame_pfn = c->meter + c->fleet_pages;
	if (c->cfg->lx.on && c->cfg->lx.agent)
		c->kinds = (uint8_t *)(c->frame_pfn + c->frames);
	return coord_pools_open(c, e);
}

/*
 * At worst every second page of a domain is a frame, never more than all. They are there whatever the
 * engine is, as it may be switched to hash (coord_switch.c): the files are sparse.
 */
static void layout_pools(struct coord *c, uint64_t pages)
{
	c->pooled = c->engine == ksm_engine_find("hash");
	c->npools = c->place.npools;
	c->pool = calloc(c->npools, sizeof(*c->pool));
	OB_ASSERT(c->pool);
	for (unsigned int i = 0; i < c->npools; i++) {
		c->pool[i] = (struct coord_pool){
			.pool_fd = -1,
			.meta_fd = -1,
			.frames = c->place.pool[i].guests * pages,
			.frame_base = c->frames,
		};
		c->frames += c->pool[i].frames;
	}
}

int coord_layout(struct coord *c, unsigned int nodes, struct ob_err *e)
{
	const struct fleet_config *cfg = c->cfg;
	uint64_t pages = cfg->mem_bytes / OB_PAGE_SIZE;
	unsigned int *domain = calloc(cfg->guests, sizeof(*domain));
	const struct place *p = &c->place;

	OB_ASSERT(domain);
	domain_opts_number(&cfg->domains, cfg->guests, domain);
	place_make(&c->place, domain, cfg->guests, cfg->cell, nodes, cfg->across_nodes);
	free(domain);
	if (p->ncells > KSM_MAX_CELLS)
		return ob_fail(
			e, E2BIG,
			"%u guests in %u domains on %u NUMA nodes are %u cells, more than %d; "
			"give a larger --cell",
			cfg->guests, p->domains, p->nodes, p->ncells, KSM_MAX_CELLS);
	c->ncells = p->ncells;
	c->cell = calloc(c->ncells, sizeof(*c->cell));
	c->guest = calloc(cfg->guests, sizeof(*c->guest));
	OB_ASSERT(c->cell && c->guest);
	for (unsigned int i = 0; i < c->ncells; i++)
		c->cell[i] = (struct coord_cell){
			.fd = -1,
			.guest = p->order + p->cell[i].first,
			.n = p->cell[i].n,
		};
	for (unsigned int i = 0; i < cfg->guests; i++) {
		struct run_guest *g = &c->out->guest[i];

		c->guest[i].id = g->id = i;
		g->vcpus = OB_MAX(cfg->lx.vcpus, 1u);
		c->guest[i].cell = p->cell_of[i];
		c->guest[i].page_base = (uint64_t)i * pages;
		c->guest[i].pages = pages;
		g->domain = p->domain_of[i];
		snprintf(g->workload, sizeof(g->workload), "%s",
			 cfg->workload[i % cfg->nworkloads]);
		snprintf(g->end, sizeof(g->end), "running");
	}
	c->fleet_pages = pages * cfg->guests;
	layout_pools(c, pages);
	coord_domains_init(c);
	return 0;
}

/* Where the cell belongs: its domain, its part of a pool, its node when there are several. */
static void setup_place(const struct coord *c, unsigned int cell, json_t *doc)
{
	const struct place_cell *at = &c->place.cell[cell];
	const struct coord_pool *pool = c->npools ? &c->pool[at->pool] : NULL;
	json_t *o =
		json_pack("{s:s,s:I,s:I,s:I}", "name", c->out->domain[at->domain].name, "cell",
			  (json_int_t)at->number, "frames", (json_int_t)(pool ? pool->frames : 0),
			  "frame_base", (json_int_t)(pool ? pool->frame_base : 0));

	OB_ASSERT(o);
	json_object_set_new(doc, "domain", o);
	if (c->place.nodes > 1)
		json_object_set_new(doc, "node", json_integer(at->node));
}

/* A cell that cannot be bound runs all the same: say so once. */
static void take_bound(struct coord *c, const json_t *a)
{
	const char *why = proto_str(a, "unbound");

	if (c->place.nodes == 1)
		return;
	if (!*why)
		c->out->cells_bound++;
	else if (!c->said_unbound)
		ob_warn("cells are placed on %u NUMA nodes, but not all are bound: %s",
			c->place.nodes, why);
	c->said_unbound |= *why != '\0';
}

static json_t *setup_doc(struct coord *c, unsigned int cell)
{
	const struct fleet_config *cfg = c->cfg;
	json_t *guests = json_array(), *doc;

	for (unsigned int n = 0; n < c->cell[cell].n; n++) {
		char cmdline[BOOT_CMDLINE_MAX], console[1200] = "", words[96];
		unsigned int i = c->cell[cell].guest[n];

		opts_workload_words(c->out->guest[i].workload, words, sizeof(words));
		snprintf(cmdline, sizeof(cmdline), "%s seed=%llu common=%llu guest=%u", words,
			 (unsigned long long)(cfg->seed * 1000003 + i + 1),
			 (unsigned long long)cfg->seed, i);
		if (cfg->lx.on)
			linux_cmdline(cfg, i, c->out->guest[i].workload, cmdline, sizeof(cmdline));
		if (cfg->console_fd > 0)
			snprintf(console, sizeof(console), "-");
		else if (cfg->out_dir)
			snprintf(console, sizeof(console), "%s/console/%s-guest%u.log",
				 cfg->out_dir, c->engine->name, i);
		OB_ASSERT(!json_array_append_new(
			guests, json_pack("{s:I,s:I,s:I,s:s,s:s,s:s}", "id", (json_int_t)i, "mem",
					  (json_int_t)cfg->mem_bytes, "page_base",
					  (json_int_t)c->guest[i].page_base, "workload",
					  c->out->guest[i].workload, "cmdline", cmdline, "console",
					  console)));
		coord_linux_guest(cfg, i, json_array_get(guests, n));
	}
	doc = json_pack("{s:s,s:s,s:I,s:I,s:I,s:I,s:s,s:s,s:o,s:s,s:I}", "do", "setup", "sharing",
			c->engine->name, "cell", (json_int_t)cell, "inject",
			(json_int_t)cfg->inject, "fleet_pages", (json_int_t)c->fleet_pages,
			"fleet_frames", (json_int_t)c->frames, "kernel", cfg->kernel_path, "image",
			cfg->image_path ? cfg->image_path : "", "guests", guests, "pages",
			ept_pages_name(cfg->pages), "huge_threshold",
			(json_int_t)cfg->huge_threshold);
	OB_ASSERT(doc);
	json_object_set_new(doc, "scan_gap_ms", json_integer((json_int_t)cfg->scan_gap_ms));
	json_object_set_new(doc, "io_hints", json_boolean(cfg->io_hints));
	json_object_set_new(doc, "max_pause_ns",
			    json_integer((json_int_t)(cfg->max_pause_us * OB_NS_PER_US)));
	json_object_set_new(doc, "working_set", coord_wset_doc(cfg));
	json_object_set_new(doc, "pc", coord_linux_doc(cfg));
	setup_place(c, cell, doc);
	return doc;
}

static int take_setup(struct coord *c, unsigned int cell, const json_t *a, struct ob_err *e)
{
	const json_t *guests = json_object_get(a, "guests"), *g, *ram, *r;
	size_t i, k;

	json_array_foreach (guests, i, g) {
		unsigned int id = (unsigned int)proto_u64(g, "id");

		if (id >= c->cfg->guests)
			continue;
		ram = json_object_get(g, "ram");
		json_array_foreach (ram, k, r) {
			if (k >= COORD_MAX_RAM)
				break;
			c->guest[id].ram[k].hva =
				(uint64_t)json_integer_value(json_array_get(r, 0));
			c->guest[id].ram[k].size =
				(uint64_t)json_integer_value(json_array_get(r, 1));
			c->guest[id].nram = (unsigned int)k + 1;
		}
	}
	if (json_array_size(guests) != c->cell[cell].n)
		return ob_fail(e, EPROTO, "cell %u made %zu guests of %u", cell,
			       json_array_size(guests), c->cell[cell].n);
	return 0;
}

static int make_console_dir(const struct coord *c, struct ob_err *e)
{
	char dir[1100];

	if (!c->cfg->out_dir)
		return 0;
	snprintf(dir, sizeof(dir), "%s/console", c->cfg->out_dir);
	if (mkdir(dir, 0777) && errno != EEXIST)
		return ob_fail(e, errno, "%s: %s", dir, strerror(errno));
	return 0;
}

int coord_setup(struct coord *c, struct ob_err *e)
{
	struct rlimit nofile;
	json_t *a;
	int r;

	/* One descriptor a cell here; the cells raise their own. */
	if (!getrlimit(RLIMIT_NOFILE, &nofile)) {
		nofile.rlim_cur = nofile.rlim_max;
		setrlimit(RLIMIT_NOFILE, &nofile);
	}
	r = make_console_dir(c, e);
	if (!r)
		r = setup_shared(c, e);
	if (!r)
		r = setup_budget(c, e);
	for (unsigned int i = 0; i < c->ncells && !r; i++)
		r = coord_spawn(c, i, e);
	if (r)
		return r;
	for (unsigned int i = 0; i < c->ncells && !ob_stop_signal; i++) {
		coord_progress(c, "making guests: %u of %u", c->place.cell[i].first,
			       c->cfg->guests);
		r = coord_ask_one(c, i, setup_doc(c, i), SETUP_TIMEOUT_MS, &a, e);
		if (r == -EPIPE)
			return ob_fail(e, EIO, "cell %u ended while its guests were made", i);
		if (r)
			return r;
		r = take_setup(c, i, a, e);
		take_bound(c, a);
		json_decref(a);
		if (r)
			return r;
		control_serve(c->cfg->control, 0);
	}
	setpriority(PRIO_PROCESS, 0, CONTROL_NICE);
	return 0;
}
