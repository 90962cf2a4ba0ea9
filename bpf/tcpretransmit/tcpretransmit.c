// SPDX-License-Identifier: (GPL-2.0-only OR MIT)
//go:build ignore
// clang-format off
/*
 * Segments TCP had to send again, for each remote end and process, and packets the
 * kernel dropped, by its own reason. Retransmissions run in timers, where no process
 * can be asked: a socket belongs to the process that began its connect (owners), or
 * to the one that listens on its local port (ports).
 */
#include "../headers/socket.h"

enum kind { DATA, SYN, SYNACK };

struct retransmit {
	struct destination to;
	__u32 kind;
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u64); /* struct sock * */
	__type(value, __u32); /* slot */
	__uint(max_entries, 16384);
} owners SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u16); /* local port, host byte order */
	__type(value, __u32); /* slot */
	__uint(max_entries, 256);
} ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__type(key, struct retransmit);
	__type(value, __u64);
	__uint(max_entries, 512);
} retransmits SEC(".maps");

#define MAX_REASONS 256

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32); /* enum skb_drop_reason; the last: all above */
	__type(value, __u64);
	__uint(max_entries, MAX_REASONS);
} drops SEC(".maps");

SEC("tp_btf/inet_sock_set_state")
int owner_state(__u64 *ctx)
{
	int oldstate = (int)ctx[1], newstate = (int)ctx[2];
	__u64 id = ctx[0];
	__u32 tgid, slot;

	if (newstate == TCP_SYN_SENT) {
		count(COUNT_CALLS);
		tgid = bpf_get_current_pid_tgid() >> 32;
		slot = slot_of(tgid);
		if (slot && bpf_map_update_elem(&owners, &id, &slot, BPF_ANY))
			count(LOST_INFLIGHT);
	} else if (newstate == TCP_CLOSE && oldstate != TCP_LISTEN) {
		count(COUNT_CALLS);
		bpf_map_delete_elem(&owners, &id);
	}
	return 0;
}

static __always_inline void record(const struct sock *sk, __u32 kind)
{
	struct retransmit r = {};
	__u64 id = (__u64)sk, zero = 0, *n;
	__u16 local = sk->__sk_common.skc_num;
	struct kernfs_node *kn;
	struct cgroup *cgroup;
	__u32 *slot;

	count(COUNT_CALLS);
	slot = bpf_map_lookup_elem(&owners, &id);
	if (slot) {
		fill_remote(sk, &r.to);
	} else {
		/* A server's peers are clients with ports of the moment: one series for all. */
		slot = bpf_map_lookup_elem(&ports, &local);
		r.to.port = slot ? (__u16)(local << 8 | local >> 8) : 0;
	}
	if (!slot)
		return;
	if (sampled_out())
		return;
	r.to.slot = *slot;
	cgroup = sk->sk_cgrp_data.cgroup;
	if (cgroup) {
		kn = cgroup->kn;
		if (kn)
			r.to.cgroup = kn->id;
	}
	r.kind = kind;
	n = bpf_map_lookup_elem(&retransmits, &r);
	if (!n) {
		bpf_map_update_elem(&retransmits, &r, &zero, BPF_NOEXIST);
		n = bpf_map_lookup_elem(&retransmits, &r);
	}
	if (!n) {
		count(LOST_SERIES);
		return;
	}
	__sync_fetch_and_add(n, 1);
	count(COUNT_RECORDED);
}

SEC("tp_btf/tcp_retransmit_skb")
int retransmit_skb(__u64 *ctx)
{
	const struct sock *sk = (void *)ctx[0];

	record(sk, sk->__sk_common.skc_state == TCP_SYN_SENT ? SYN : DATA);
	return 0;
}

SEC("tp_btf/tcp_retransmit_synack")
int retransmit_synack(__u64 *ctx)
{
	record((void *)ctx[0], SYNACK);
	return 0;
}

/* Linux 5.17 and later: the reason is the third argument. */
SEC("tp_btf/kfree_skb")
int drop(__u64 *ctx)
{
	__u32 reason = (__u32)ctx[2];
	__u64 *n;

	count(COUNT_CALLS);
	if (reason >= MAX_REASONS)
		reason = MAX_REASONS - 1;
	n = bpf_map_lookup_elem(&drops, &reason);
	if (n)
		__sync_fetch_and_add(n, 1);
	return 0;
}
