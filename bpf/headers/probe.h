/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/*
 * What every probe shares: helper numbers, the few kernel structures it reads (only
 * the fields; CO-RE finds them in the running kernel), the histogram, counters and
 * exemplars of slow events.
 *
 * This stands in place of libbpf's headers and a vmlinux.h: some 3 MB fewer, and a
 * build that depends on clang only. Numbers and structures are kernel ABI
 * (include/uapi/linux/bpf.h).
 */
#ifndef PROBE_H
#define PROBE_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef int __s32;
typedef long long __s64;

#define SEC(name) __attribute__((section(name), used))
#define __always_inline inline __attribute__((always_inline, unused))
#define __core __attribute__((preserve_access_index))
#define __uint(name, val) int(*name)[val]
#define __type(name, val) typeof(val) *name
#define core_field_exists(field) __builtin_preserve_field_info(field, 2 /* BPF_FIELD_EXISTS */)

enum {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERF_EVENT_ARRAY = 4,
	BPF_MAP_TYPE_PERCPU_HASH = 5,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_QUEUE = 22,
	BPF_MAP_TYPE_RINGBUF = 27,
};

#define BPF_ANY 0
#define BPF_NOEXIST 1
#define BPF_F_CURRENT_CPU 0xffffffffULL

static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*const bpf_map_update_elem)(void *map, const void *key, const void *value, __u64 flags) = (void *)2;
static long (*const bpf_map_delete_elem)(void *map, const void *key) = (void *)3;
static __u64 (*const bpf_ktime_get_ns)(void) = (void *)5;
static __u32 (*const bpf_get_prandom_u32)(void) = (void *)7;
static __u64 (*const bpf_get_current_pid_tgid)(void) = (void *)14;
static long (*const bpf_get_current_comm)(void *buf, __u32 size) = (void *)16;
static long (*const bpf_perf_event_output)(void *ctx, void *map, __u64 flags, void *data, __u64 size) = (void *)25;
static __u64 (*const bpf_get_current_cgroup_id)(void) = (void *)80;
static long (*const bpf_map_push_elem)(void *map, const void *value, __u64 flags) = (void *)87;
static long (*const bpf_probe_read_kernel)(void *dst, __u32 size, const void *src) = (void *)113;
static long (*const bpf_ringbuf_output)(void *map, void *data, __u64 size, __u64 flags) = (void *)130;
static long (*const bpf_timer_init)(void *timer, void *map, __u64 flags) = (void *)169;
static long (*const bpf_timer_set_callback)(void *timer, void *callback) = (void *)170;
static long (*const bpf_timer_start)(void *timer, __u64 nsecs, __u64 flags) = (void *)171;
static long (*const bpf_for_each_map_elem)(void *map, void *callback, void *ctx, __u64 flags) = (void *)164;

char __license[] SEC("license") = "Dual MIT/GPL";

/* ---- watched processes ------------------------------------------------- */

/*
 * User space gives each watched process a slot, 1 and up; 0 means "not watched".
 * watched_bits answers most questions with one inlined array access: a bit a tgid,
 * modulo 65536, so that an unwatched process costs a load and a test.
 */
#define MAX_SLOTS 256
#define BITS 65536

struct bits {
	__u64 word[BITS / 64];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct bits);
	__uint(max_entries, 1);
} watched_bits SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32); /* tgid */
	__type(value, __u32); /* slot */
	__uint(max_entries, 1024);
} watched SEC(".maps");

static __always_inline int maybe_watched(__u32 tgid)
{
	__u32 zero = 0;
	struct bits *b = bpf_map_lookup_elem(&watched_bits, &zero);

	return b && (b->word[(tgid % BITS) / 64] >> (tgid % 64) & 1);
}

static __always_inline __u32 slot_of(__u32 tgid)
{
	__u32 *slot;

	if (!maybe_watched(tgid))
		return 0;
	slot = bpf_map_lookup_elem(&watched, &tgid);
	return slot ? *slot : 0;
}

/* ---- counters ---------------------------------------------------------- */

/* Each reason for which something is missing from what user space reads. */
enum counter {
	COUNT_CALLS, /* events looked at */
	COUNT_RECORDED, /* events in a histogram */
	LOST_INFLIGHT, /* no room for one more started, not yet ended event */
	LOST_SERIES, /* no room for one more series */
	LOST_RING, /* exemplar: no room in the ring */
	LOST_LIMITED, /* exemplar: more than the allowed number in a short time */
	COUNTERS,
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, COUNTERS);
} counters SEC(".maps");

static __always_inline void count(__u32 which)
{
	__u64 *n = bpf_map_lookup_elem(&counters, &which);

	if (n)
		__sync_fetch_and_add(n, 1);
}

/* count_alone is count where nothing can interrupt it on its CPU. */
static __always_inline void count_alone(__u32 which)
{
	__u64 *n = bpf_map_lookup_elem(&counters, &which);

	if (n)
		++*n;
}

/* ---- sampling: user space widens the mask when the budget is exceeded ---- */

volatile __u32 sample_mask; /* 0: every event; 2^n-1: one in 2^n */

static __always_inline int sampled_out(void)
{
	__u32 mask = sample_mask;

	return mask && (bpf_get_prandom_u32() & mask);
}

/* ---- histogram --------------------------------------------------------- */

/*
 * Log-linear: eight buckets an octave, so a bucket is at most an eighth of its lower
 * bound wide. The unit is 1024 ns; the last bucket begins at 257 s. bpf/hist has the
 * same arithmetic.
 */
#define HIST_SHIFT 10
#define HIST_SUB 3
#define HIST_TOP 27
#define HIST_SLOTS 208

struct hist {
	__u64 sum; /* ns */
	__u64 slot[HIST_SLOTS];
};

static __always_inline __u32 log2_u32(__u32 v)
{
	__u32 r = 0;

	if (v >> 16) { r += 16; v >>= 16; }
	if (v >> 8) { r += 8; v >>= 8; }
	if (v >> 4) { r += 4; v >>= 4; }
	if (v >> 2) { r += 2; v >>= 2; }
	return r + (v >> 1);
}

static __always_inline __u32 hist_index(__u64 ns)
{
	__u64 units = ns >> HIST_SHIFT;
	__u32 v, e;

	if (units >> (HIST_TOP + 1))
		return HIST_SLOTS - 1;
	v = units;
	if (v < (1 << HIST_SUB))
		return v;
	e = log2_u32(v);
	return ((e - HIST_SUB + 1) << HIST_SUB) + ((v >> (e - HIST_SUB)) & ((1 << HIST_SUB) - 1));
}

static __always_inline void hist_add(struct hist *h, __u64 ns)
{
	__u64 i = hist_index(ns);

	/* Keep the compiler from testing one copy and using another: the verifier would
	 * not see that they are the same. */
	asm volatile("" : "+r"(i));
	if (i >= HIST_SLOTS)
		i = HIST_SLOTS - 1;
	__sync_fetch_and_add(&h->slot[i], 1);
	__sync_fetch_and_add(&h->sum, ns);
	count(COUNT_RECORDED);
}

/* hist_add_alone is hist_add where nothing can interrupt it on its CPU. */
static __always_inline void hist_add_alone(struct hist *h, __u64 ns)
{
	__u64 i = hist_index(ns);

	asm volatile("" : "+r"(i)); /* as in hist_add */
	if (i >= HIST_SLOTS)
		i = HIST_SLOTS - 1;
	h->slot[i]++;
	h->sum += ns;
	count_alone(COUNT_RECORDED);
}

static const struct hist zero_hist;

/* hist_for finds the series' histogram or makes it; NULL when there is no room. */
static __always_inline struct hist *hist_for(void *map, const void *key)
{
	struct hist *h = bpf_map_lookup_elem(map, key);

	if (h)
		return h;
	bpf_map_update_elem(map, key, &zero_hist, BPF_NOEXIST);
	h = bpf_map_lookup_elem(map, key);
	if (!h)
		count(LOST_SERIES);
	return h;
}

/* ---- exemplars --------------------------------------------------------- */

struct exemplar {
	__u64 at; /* CLOCK_MONOTONIC, ns */
	__u64 latency; /* ns */
	__u64 cgroup;
	__u32 tgid;
	__u32 tid;
	__u32 slot;
	__u32 detail; /* the probe's own: error number, kind of delay */
	__u16 family; /* of addr: 0, 2 (IPv4), 10 (IPv6) */
	__u16 port; /* network byte order */
	__u8 addr[16];
	char comm[16];
	__u32 pad;
};

#define EXEMPLAR_NONE 0
#define EXEMPLAR_RING 1
#define EXEMPLAR_PERF 2
#define EXEMPLAR_QUEUE 3

/* Constants of one load: the verifier drops the branches that cannot be taken, so a
 * kernel without ring buffers never sees their helper. */
volatile const __u32 exemplar_mode = EXEMPLAR_RING;
volatile const __u64 slow_ns = 0; /* events at least this slow become exemplars; 0: none */
volatile const __u32 exemplar_limit = 16; /* a CPU, in a tenth of a second */

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} exemplars_ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERF_EVENT_ARRAY);
	__type(key, __u32);
	__type(value, __u32);
} exemplars_perf SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__type(value, struct exemplar);
	__uint(max_entries, 1024);
} exemplars_queue SEC(".maps");

struct window {
	__u64 start;
	__u64 n;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct window);
	__uint(max_entries, 1);
} exemplar_window SEC(".maps");

static __always_inline int limited(__u64 now)
{
	__u32 zero = 0;
	struct window *w = bpf_map_lookup_elem(&exemplar_window, &zero);

	if (!w)
		return 1;
	if (now - w->start > 100000000ULL) {
		w->start = now;
		w->n = 0;
	}
	return w->n++ >= exemplar_limit;
}

static __always_inline int is_slow(__u64 ns)
{
	return exemplar_mode != EXEMPLAR_NONE && slow_ns && ns >= slow_ns;
}

static __always_inline void emit(void *ctx, struct exemplar *e)
{
	long err = 0;

	if (limited(e->at)) {
		count(LOST_LIMITED);
		return;
	}
	if (exemplar_mode == EXEMPLAR_RING)
		err = bpf_ringbuf_output(&exemplars_ring, e, sizeof(*e), 0);
	else if (exemplar_mode == EXEMPLAR_PERF)
		err = bpf_perf_event_output(ctx, &exemplars_perf, BPF_F_CURRENT_CPU, e, sizeof(*e));
	else if (exemplar_mode == EXEMPLAR_QUEUE)
		err = bpf_map_push_elem(&exemplars_queue, e, BPF_ANY);
	if (err)
		count(LOST_RING);
}

#endif
