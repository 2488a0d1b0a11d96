/* SPDX-License-Identifier: Apache-2.0 */
/*
 * work_kv.c: a hash table of fixed-size values under a Zipf load, nine reads for a write. Open
 * addressing with linear probing, half full, nothing is ever removed. A value says its key and
 * version, and the rest of it follows from those; the version that each key must have is kept apart
 * as well. So a read finds a torn value, a value of another key, and a write that was lost.
 */
#include "workloads/common/guest.h"

#define TAG_KV	    9
#define VALUE_WORDS (KV_VALUE / 8)
#define PUT_ONE_IN  10

/* words: key + 1 (0: empty), version, content */
static uint64_t *kv_slot(const struct guest *g, uint64_t slot)
{
	return ram_page(g, g->area.base + slot / KV_PER_PAGE) + slot % KV_PER_PAGE * VALUE_WORDS;
}

/* The slot that holds @key, else the empty one where it would go; NULL when the table is full. */
static uint64_t *kv_find(const struct guest *g, uint64_t key)
{
	const struct kv *kv = &g->kv;
	uint64_t slot = gen_mix(key + kv->key) % kv->slots;

	barrier();
	for (uint64_t i = 0; i < kv->slots; i++) {
		uint64_t *w = kv_slot(g, slot);

		if (w[0] == key + 1 || w[0] == 0)
			return w;
		slot = slot + 1 < kv->slots ? slot + 1 : 0;
	}
	return NULL;
}

static void kv_put(struct guest *g, uint64_t key)
{
	struct kv *kv = &g->kv;
	uint64_t *w = kv_find(g, key), start;

	if (!w || (kv->version[key] && w[0] == 0)) {
		/* It was there, and its slot cannot have become empty: memory was lost. */
		agent_mismatch(g, w ? w : kv_slot(g, 0), key + 1, 0, AGENT_KIND_KV);
		return;
	}
	kv->version[key]++;
	start = gen_start(kv->key, key, kv->version[key]);
	w[0] = key + 1;
	w[1] = kv->version[key];
	for (unsigned int i = 2; i < VALUE_WORDS; i++)
		w[i] = gen_raw(start, i);
}

static void kv_get(struct guest *g, uint64_t key)
{
	const struct kv *kv = &g->kv;
	const uint64_t *w = kv_find(g, key);
	uint64_t start = gen_start(kv->key, key, kv->version[key]);

	if (!w) {
		agent_mismatch(g, kv_slot(g, 0), key + 1, 0, AGENT_KIND_KV);
		return;
	}
	for (unsigned int i = 0; i < VALUE_WORDS; i++) {
		uint64_t expect = i == 0 ? key + 1 : i == 1 ? kv->version[key] : gen_raw(start, i);
		uint64_t got = w[i];

		if (got != expect) {
			agent_mismatch(g, w + i, expect, got, AGENT_KIND_KV);
			return;
		}
	}
}

static void kv_init(struct guest *g)
{
	struct kv *kv = &g->kv;

	kv->slots = g->area.pages * KV_PER_PAGE;
	kv->keys = kv->slots >> KV_FILL_SHIFT;
	kv->key = gen_key(g->cfg.seed, TAG_KV);
	kv->rng.s = gen_key(kv->key, TAG_KV);
	kv->version = ram_take(g, kv->keys * sizeof(*kv->version));
	gen_zipf_init(&kv->zipf, kv->keys);
	for (uint64_t key = 0; key < kv->keys; key++) {
		kv_put(g, key);
		g->report->heartbeat += key % 256 == 0;
	}
}

static void kv_op(struct guest *g)
{
	struct kv *kv = &g->kv;
	uint64_t key = gen_scatter(gen_zipf_rank(&kv->zipf, &kv->rng), kv->keys);

	if (gen_below(&kv->rng, PUT_ONE_IN) == 0)
		kv_put(g, key);
	else
		kv_get(g, key);
}

const struct workload work_kv = {
	.name = "kv",
	.needs_area = true,
	.batch = 128,
	.sleep_ns = 4 * MS,
	.verify_rate = 12000,
	.write_rate = 100,
	.init = kv_init,
	.op = kv_op,
};
