// SPDX-License-Identifier: (GPL-2.0-only OR MIT)
//go:build ignore
// clang-format off
/*
 * How long an established connection waits in the accept queue until the server takes
 * it: from SYN_RECV -> ESTABLISHED (a soft interrupt) to the return of accept. Which
 * ports to look at is learned here, from listen and accept of watched processes, and
 * told by user space for those that listened before the probe began.
 */
#include "../headers/socket.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u16); /* local port, host byte order */
	__type(value, __u32); /* slot */
	__uint(max_entries, 256);
} ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u64); /* struct sock * */
	__type(value, __u64); /* ns */
	__uint(max_entries, 16384);
} pending SEC(".maps");

struct listener {
	__u32 slot;
	__u16 port;
	__u16 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__type(key, struct listener);
	__type(value, struct hist);
	__uint(max_entries, 128);
} accepts SEC(".maps");

static __always_inline __u32 learn(__u16 port)
{
	__u32 slot = slot_of(bpf_get_current_pid_tgid() >> 32), *known;

	if (!slot)
		return 0;
	known = bpf_map_lookup_elem(&ports, &port);
	if (known && *known == slot)
		return slot;
	if (bpf_map_update_elem(&ports, &port, &slot, BPF_ANY))
		count(LOST_SERIES);
	return slot;
}

SEC("tp_btf/inet_sock_set_state")
int accept_state(__u64 *ctx)
{
	const struct sock *sk = (void *)ctx[0];
	int oldstate = (int)ctx[1], newstate = (int)ctx[2];
	__u64 id = (__u64)sk, now;
	__u16 port;

	if (newstate == TCP_LISTEN) {
		count(COUNT_CALLS);
		learn(sk->__sk_common.skc_num);
	} else if (oldstate == TCP_SYN_RECV && newstate == TCP_ESTABLISHED) {
		count(COUNT_CALLS);
		port = sk->__sk_common.skc_num;
		if (!bpf_map_lookup_elem(&ports, &port) || sampled_out())
			return 0;
		now = bpf_ktime_get_ns();
		if (bpf_map_update_elem(&pending, &id, &now, BPF_ANY))
			count(LOST_INFLIGHT);
	} else if (newstate == TCP_CLOSE) {
		count(COUNT_CALLS);
		bpf_map_delete_elem(&pending, &id);
	}
	return 0;
}

static __always_inline void slow(void *ctx, const struct listener *l, __u64 now, __u64 wait)
{
	__u64 pid = bpf_get_current_pid_tgid();
	struct exemplar e = {};

	e.at = now;
	e.latency = wait;
	e.cgroup = bpf_get_current_cgroup_id();
	e.tgid = pid >> 32;
	e.tid = (__u32)pid;
	e.slot = l->slot;
	e.port = (__u16)(l->port << 8 | l->port >> 8);
	bpf_get_current_comm(e.comm, sizeof(e.comm));
	emit(ctx, &e);
}

/* The arguments changed in Linux 6.10; the return value is found without them. */
SEC("fexit/inet_csk_accept")
int accepted(__u64 *ctx)
{
	struct listener l = {};
	__u64 id = 0, now, *since, wait;
	struct hist *h;

	count(COUNT_CALLS);
	if (bpf_get_func_ret(ctx, &id) || !id)
		return 0;
	bpf_probe_read_kernel(&l.port, sizeof(l.port), __builtin_preserve_access_index(&((struct sock *)id)->__sk_common.skc_num));
	l.slot = learn(l.port);
	since = bpf_map_lookup_elem(&pending, &id);
	if (!since)
		return 0;
	now = bpf_ktime_get_ns();
	wait = now - *since;
	bpf_map_delete_elem(&pending, &id);
	if (!l.slot)
		return 0;
	h = hist_for(&accepts, &l);
	if (h)
		hist_add(h, wait);
	if (is_slow(wait))
		slow(ctx, &l, now, wait);
	return 0;
}
