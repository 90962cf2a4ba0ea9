// SPDX-License-Identifier: (GPL-2.0-only OR MIT)
//go:build ignore
// clang-format off
/*
 * When a Go program stops its world, and how long a garbage collection marks, by
 * uprobes at the entries of four functions of the Go runtime. Entries only: a return
 * probe would write to a stack that Go may move.
 */
#include "../headers/probe.h"

enum kind { STOPPED, MARKING, KINDS };

struct phase {
	__u32 tgid;
	__u32 kind;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, struct phase);
	__type(value, __u64); /* ns */
	__uint(max_entries, 2048);
} begun SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct hist);
	__uint(max_entries, MAX_SLOTS * KINDS);
} pauses SEC(".maps");

static __always_inline void begin(__u32 kind)
{
	struct phase p = {};
	__u64 now;

	count(COUNT_CALLS);
	p.tgid = bpf_get_current_pid_tgid() >> 32;
	p.kind = kind;
	if (!slot_of(p.tgid))
		return;
	now = bpf_ktime_get_ns();
	if (bpf_map_update_elem(&begun, &p, &now, BPF_ANY))
		count(LOST_INFLIGHT);
}

static __always_inline void slow(void *ctx, __u32 slot, __u32 kind, __u64 now, __u64 took)
{
	__u64 pid = bpf_get_current_pid_tgid();
	struct exemplar e = {};

	e.at = now;
	e.latency = took;
	e.cgroup = bpf_get_current_cgroup_id();
	e.tgid = pid >> 32;
	e.tid = (__u32)pid;
	e.slot = slot;
	e.detail = kind;
	bpf_get_current_comm(e.comm, sizeof(e.comm));
	emit(ctx, &e);
}

static __always_inline void end(void *ctx, __u32 kind)
{
	struct phase p = {};
	__u64 now, took, *at;
	__u32 slot, index;
	struct hist *h;

	count(COUNT_CALLS);
	p.tgid = bpf_get_current_pid_tgid() >> 32;
	p.kind = kind;
	slot = slot_of(p.tgid);
	if (!slot)
		return;
	at = bpf_map_lookup_elem(&begun, &p);
	if (!at)
		return;
	now = bpf_ktime_get_ns();
	took = now - *at;
	bpf_map_delete_elem(&begun, &p);
	index = slot * KINDS + kind;
	h = bpf_map_lookup_elem(&pauses, &index);
	if (!h) {
		count(LOST_SERIES);
		return;
	}
	hist_add(h, took);
	if (kind == STOPPED && is_slow(took))
		slow(ctx, slot, kind, now, took);
}

SEC("uprobe/runtime.stopTheWorldWithSema")
int world_stops(void *ctx)
{
	begin(STOPPED);
	return 0;
}

SEC("uprobe/runtime.startTheWorldWithSema")
int world_starts(void *ctx)
{
	end(ctx, STOPPED);
	return 0;
}

SEC("uprobe/runtime.gcStart")
int mark_begins(void *ctx)
{
	begin(MARKING);
	return 0;
}

SEC("uprobe/runtime.gcMarkTermination")
int mark_ends(void *ctx)
{
	end(ctx, MARKING);
	return 0;
}
