// SPDX-License-Identifier: (GPL-2.0-only OR MIT)
//go:build ignore
// clang-format off
/*
 * How long threads of watched processes wait for a CPU: from wake-up to running, and
 * from being preempted to running again. The sum of both is what the kernel calls
 * run_delay in /proc/<pid>/schedstat.
 *
 * These hooks run at every switch of the machine, with the run queue locked: so one
 * bit test for processes that are not watched, preallocated maps only (an allocation
 * here can deadlock on old kernels), no storage that grows.
 */
#include "../headers/probe.h"

struct task_struct {
	int pid;
	int tgid;
	unsigned int __state;
	char comm[16];
} __core;

/* before Linux 5.14 */
struct task_struct___old {
	long state;
} __core;

enum kind { WAKEUP, PREEMPTED, KINDS };

struct wait {
	__u64 since; /* 0: not waiting */
	__u32 slot;
	__u32 kind;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32); /* tid */
	__type(value, struct wait);
	__uint(max_entries, 16384);
} waits SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32); /* slot * KINDS + kind */
	__type(value, struct hist);
	__uint(max_entries, MAX_SLOTS * KINDS);
} delays SEC(".maps");

static __always_inline int runnable(const struct task_struct *t)
{
	if (core_field_exists(t->__state))
		return t->__state == 0;
	return ((const struct task_struct___old *)t)->state == 0;
}

static __always_inline void waiting(const struct task_struct *t, __u32 kind)
{
	__u32 tid = t->pid, tgid = t->tgid;
	struct wait fresh = {}, *w;

	if (!tid || !maybe_watched(tgid))
		return;
	w = bpf_map_lookup_elem(&waits, &tid);
	if (!w) {
		fresh.slot = slot_of(tgid);
		if (!fresh.slot)
			return;
		bpf_map_update_elem(&waits, &tid, &fresh, BPF_ANY);
		w = bpf_map_lookup_elem(&waits, &tid);
		if (!w) {
			count(LOST_INFLIGHT);
			return;
		}
	}
	if (sampled_out()) {
		w->since = 0;
		return;
	}
	w->kind = kind;
	w->since = bpf_ktime_get_ns();
}

SEC("tp_btf/sched_wakeup")
int sched_wakeup(__u64 *ctx)
{
	count(COUNT_CALLS);
	waiting((void *)ctx[0], WAKEUP);
	return 0;
}

SEC("tp_btf/sched_wakeup_new")
int sched_wakeup_new(__u64 *ctx)
{
	count(COUNT_CALLS);
	waiting((void *)ctx[0], WAKEUP);
	return 0;
}

static __always_inline void leaves(const struct task_struct *prev, int preempted)
{
	__u32 tid = prev->pid;
	struct wait *w;

	if (preempted || runnable(prev)) {
		waiting(prev, PREEMPTED);
		return;
	}
	/* A wake-up that came before the thread had gone to sleep has left its mark. */
	if (!maybe_watched(prev->tgid))
		return;
	w = bpf_map_lookup_elem(&waits, &tid);
	if (w)
		w->since = 0;
}

static __always_inline void slow(void *ctx, const struct task_struct *t, const struct wait *w, __u64 now, __u64 delay)
{
	struct exemplar e = {};

	e.at = now;
	e.latency = delay;
	e.tgid = t->tgid;
	e.tid = t->pid;
	e.slot = w->slot;
	e.detail = w->kind;
	__builtin_memcpy(e.comm, t->comm, sizeof(e.comm));
	emit(ctx, &e);
}

static __always_inline void runs(void *ctx, const struct task_struct *next)
{
	__u32 tid = next->pid, index;
	__u64 now, delay;
	struct wait *w;
	struct hist *h;

	if (!tid || !maybe_watched(next->tgid))
		return;
	w = bpf_map_lookup_elem(&waits, &tid);
	if (!w || !w->since)
		return;
	now = bpf_ktime_get_ns();
	delay = now - w->since;
	w->since = 0;
	if ((__s64)delay < 0) /* the clocks of two CPUs may differ by a little */
		delay = 0;
	index = w->slot * KINDS + w->kind;
	h = bpf_map_lookup_elem(&delays, &index);
	if (!h) {
		count(LOST_SERIES);
		return;
	}
	hist_add(h, delay);
	if (is_slow(delay))
		slow(ctx, next, w, now, delay);
}

SEC("tp_btf/sched_switch")
int sched_switch(__u64 *ctx)
{
	count(COUNT_CALLS);
	leaves((void *)ctx[1], (int)ctx[0] & 1);
	runs(ctx, (void *)ctx[2]);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int sched_exit(__u64 *ctx)
{
	const struct task_struct *t = (void *)ctx[0];
	__u32 tid = t->pid;

	if (maybe_watched(t->tgid))
		bpf_map_delete_elem(&waits, &tid);
	return 0;
}
