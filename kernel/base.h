/* SPDX-License-Identifier: Apache-2.0 */
/*
 * base.h: what every folder stands on: typed addresses, the three classes of error, time, and
 * memory that is accounted for by arena.
 *
 * Errors come in three classes (docs/design.md):
 *  - a guest misbehaves:      that VM is stopped with a reason (vm_fail), the process goes on;
 *  - the host or a person:    the function returns -errno and says why in a struct ob_err;
 *  - an invariant is broken:  OB_ASSERT aborts, in every build, with file and line.
 */
#ifndef OVERBOOK_KERNEL_BASE_H
#define OVERBOOK_KERNEL_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OB_PAGE_SHIFT 12
#define OB_PAGE_SIZE  4096ULL
#define OB_PAGE_MASK  (OB_PAGE_SIZE - 1)

#define OB_KIB 1024ULL
#define OB_MIB (1024ULL * OB_KIB)
#define OB_GIB (1024ULL * OB_MIB)

#define OB_NS_PER_US  1000ULL
#define OB_NS_PER_MS  1000000ULL
#define OB_NS_PER_SEC 1000000000ULL

/*
 * Addresses of different spaces are different types, so that mixing them up does not compile.
 * The names are KVM's: guest physical, guest frame number, guest virtual, host virtual.
 */
typedef struct {
	uint64_t v;
} gpa_t;
typedef struct {
	uint64_t v;
} gfn_t;
typedef struct {
	uint64_t v;
} gva_t;
typedef struct {
	uint64_t v;
} hva_t;

static inline gpa_t gpa(uint64_t v)
{
	return (gpa_t){v};
}

static inline gfn_t gfn(uint64_t v)
{
	return (gfn_t){v};
}

static inline hva_t hva(uint64_t v)
{
	return (hva_t){v};
}

static inline hva_t hva_of(const void *p)
{
	return (hva_t){(uint64_t)(uintptr_t)p};
}

static inline void *hva_ptr(hva_t h)
{
	return (void *)(uintptr_t)h.v;
}

static inline gfn_t gpa_gfn(gpa_t a)
{
	return (gfn_t){a.v >> OB_PAGE_SHIFT};
}

static inline gpa_t gfn_gpa(gfn_t f)
{
	return (gpa_t){f.v << OB_PAGE_SHIFT};
}

#define OB_ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define OB_MIN(a, b)	 ((a) < (b) ? (a) : (b))
#define OB_MAX(a, b)	 ((a) > (b) ? (a) : (b))

static inline uint64_t ob_align_up(uint64_t v, uint64_t to)
{
	return (v + to - 1) / to * to;
}

/* A broken invariant: print where, abort. Always on, never behind NDEBUG. */
#define OB_ASSERT(cond)                                            \
	do {                                                       \
		if (__builtin_expect(!(cond), 0))                  \
			ob_assert_fail(#cond, __FILE__, __LINE__); \
	} while (0)
void ob_assert_fail(const char *what, const char *file, int line) __attribute__((noreturn, cold));

/*
 * One line for a person: what is wrong, where, and what to do about it. Filled by functions that
 * return -errno because of something outside the program; owned by the caller.
 */
struct ob_err {
	char msg[400];
};

/* Fill @e (may be NULL) and return -@err, so that a caller can write: return ob_fail(e, ENOENT,
 * ...). */
int ob_fail(struct ob_err *e, int err, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* A line on stderr, prefixed "overbook: ". For the few things that a person must know at once. */
void ob_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/*
 * Read a whole regular file of at most @max bytes. The buffer is the caller's, to be freed; it is
 * never NULL on success. -errno with "PATH: what is wrong" in @e (-EFBIG over @max).
 */
int ob_read_file(const char *path, uint64_t max, void **out, size_t *len, struct ob_err *e);
/* The same, but of a file that is larger its first @max bytes. */
int ob_read_head(const char *path, uint64_t max, void **out, size_t *len, struct ob_err *e);

/*
 * Arenas: one per module that holds metadata, so that what sharing costs in our own memory is read
 * off the allocator and not estimated. jemalloc underneath; plain malloc with the same counters in
 * sanitizer builds. Allocation is zeroed; running out of memory is a broken invariant and aborts
 * (sizes come from limits that were checked). Thread-safe.
 */
struct ob_arena;
struct ob_arena *ob_arena_new(const char *name);
void ob_arena_free(struct ob_arena *a);
void *ob_alloc(struct ob_arena *a, size_t bytes);
void ob_free(struct ob_arena *a, void *p);
/* Bytes in live allocations of this arena, as the allocator counts them. */
uint64_t ob_arena_bytes(struct ob_arena *a);

#endif
