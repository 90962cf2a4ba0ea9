// SPDX-License-Identifier: (GPL-2.0-only OR MIT)
//go:build ignore
// clang-format off
/*
 * How long threads of watched processes wait for a CPU: from wake-up to running, and
 * from being preempted to running again.
 *
 * The kernel adds up these waits for each thread itself (sched_info.run_delay, which
 * /proc/<pid>/schedstat shows), also across moves to another CPU. So one hook is
 * enough: when a thread leaves its CPU, what has been added since it left last time is
 * the wait before the run that now ends. That costs no clock, no map with a lock, and
 * nothing at wake-ups; a wait is told when the run after it ends.
 *
 * The hook runs at every switch of the machine, with the run queue locked and
 * interrupts off: so one bit test for processes that are not watched, arrays only, no
 * atomic operations.
 */
#include "../headers/probe.h"

struct sched_info {
	unsigned long pcount; /* times the thread got a CPU */
	unsigned long long run_delay; /* ns waited for one, in all */
} __core;

struct task_struct {
	int pid;
	int tgid;
	unsigned int __state;
	struct sched_info sched_info;
	char comm[16];
} __core;

/* before Linux 5.14 */
struct task_struct___old {
	long state;
} __core;

enum kind { WAKEUP, PREEMPTED, KINDS };

/* What a thread had when it left its CPU last time, and why it left: that is what its
 * next wait is. */
struct departure {
	__u32 tid; /* 0: nobody */
	__u32 kind;
	__u64 pcount;
	__u64 run_delay;
};

#define PLACES 65536 /* by tid: two threads that share a place lose waits, counted */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct departure);
	__uint(max_entries, PLACES);
} departures SEC(".maps");

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

static __always_inline void slow(void *ctx, const struct task_struct *t, __u32 slot, __u32 kind, __u64 delay)
{
	struct exemplar e = {};

	e.at = bpf_ktime_get_ns();
	e.latency = delay;
	e.tgid = t->tgid;
	e.tid = t->pid;
	e.slot = slot;
	e.detail = kind;
	__builtin_memcpy(e.comm, t->comm, sizeof(e.comm));
	emit(ctx, &e);
}

static __always_inline void waited(void *ctx, const struct task_struct *t, __u32 kind, __u64 delay)
{
	__u32 slot, index;
	struct hist *h;

	if (sampled_out())
		return;
	slot = slot_of(t->tgid);
	if (!slot)
		return;
	index = slot * KINDS + kind;
	h = bpf_map_lookup_elem(&delays, &index);
	if (!h) {
		count(LOST_SERIES);
		return;
	}
	hist_add_alone(h, delay);
	if (is_slow(delay))
		slow(ctx, t, slot, kind, delay);
}

SEC("tp_btf/sched_switch")
int sched_switch(__u64 *ctx)
{
	const struct task_struct *prev = (void *)ctx[1];
	__u32 tid = prev->pid, place = tid % PLACES;
	__u64 pcount, run_delay;
	struct departure *d;

	count_alone(COUNT_CALLS);
	if (!tid || !maybe_watched(prev->tgid))
		return 0;
	d = bpf_map_lookup_elem(&departures, &place);
	if (!d)
		return 0;
	pcount = prev->sched_info.pcount;
	run_delay = prev->sched_info.run_delay;
	if (d->tid == tid && pcount == d->pcount + 1) {
		waited((void *)ctx, prev, d->kind & 1, run_delay - d->run_delay);
	} else if (pcount == 1) {
		waited((void *)ctx, prev, WAKEUP, run_delay); /* a new thread */
	} else if (d->tid != tid) {
		if (d->tid)
			count_alone(LOST_INFLIGHT); /* or has been watched before; one wait at most */
	} else if (pcount > d->pcount) {
		count_alone(LOST_INFLIGHT);
	}
	d->tid = tid;
	d->kind = ((int)ctx[0] & 1) || runnable(prev) ? PREEMPTED : WAKEUP;
	d->pcount = pcount;
	d->run_delay = run_delay;
	return 0;
}
