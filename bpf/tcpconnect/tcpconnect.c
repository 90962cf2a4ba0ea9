// SPDX-License-Identifier: (GPL-2.0-only OR MIT)
//go:build ignore
// clang-format off
/*
 * How long connect takes, from SYN_SENT to ESTABLISHED, and why it fails, for each
 * destination and process. One hook, the inet_sock_set_state tracepoint, sees both
 * ends: the start in the caller's context (whose process and cgroup it is), the end
 * mostly in a soft interrupt, in whose context nobody can be asked.
 */
#include "../headers/socket.h"

struct start {
	__u64 at;
	__u64 cgroup;
	__u32 slot;
	__u32 tgid;
	__u32 tid;
	char comm[16];
	__u32 pad;
};

struct failure {
	struct destination to;
	__u32 err; /* errno; 0: the application gave up */
	__u32 pad;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u64); /* struct sock * */
	__type(value, struct start);
	__uint(max_entries, 16384);
} inflight SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__type(key, struct destination);
	__type(value, struct hist);
	__uint(max_entries, 256);
} connects SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__type(key, struct failure);
	__type(value, __u64);
	__uint(max_entries, 256);
} failures SEC(".maps");

static __always_inline void begin(__u64 id)
{
	struct start s = {};
	__u64 pid = bpf_get_current_pid_tgid();

	s.tgid = pid >> 32;
	s.tid = (__u32)pid;
	s.slot = slot_of(s.tgid);
	if (!s.slot)
		return;
	if (sampled_out())
		return;
	s.cgroup = bpf_get_current_cgroup_id();
	bpf_get_current_comm(s.comm, sizeof(s.comm));
	s.at = bpf_ktime_get_ns();
	if (bpf_map_update_elem(&inflight, &id, &s, BPF_ANY))
		count(LOST_INFLIGHT);
}

static __always_inline void failed(const struct destination *to, __u32 err)
{
	struct failure f = {};
	__u64 zero = 0, *n;

	f.to = *to;
	f.err = err;
	n = bpf_map_lookup_elem(&failures, &f);
	if (!n) {
		bpf_map_update_elem(&failures, &f, &zero, BPF_NOEXIST);
		n = bpf_map_lookup_elem(&failures, &f);
	}
	if (!n) {
		count(LOST_SERIES);
		return;
	}
	__sync_fetch_and_add(n, 1);
	count(COUNT_RECORDED);
}

static __always_inline void slow(void *ctx, const struct start *s, const struct destination *to, __u64 now, __u32 err)
{
	struct exemplar e = {};

	e.at = now;
	e.latency = now - s->at;
	e.cgroup = s->cgroup;
	e.tgid = s->tgid;
	e.tid = s->tid;
	e.slot = s->slot;
	e.detail = err;
	e.family = to->family;
	e.port = to->port;
	__builtin_memcpy(e.addr, to->addr, sizeof(e.addr));
	__builtin_memcpy(e.comm, s->comm, sizeof(e.comm));
	emit(ctx, &e);
}

static __always_inline void end(void *ctx, const struct sock *sk, __u64 id, int newstate)
{
	struct start *found = bpf_map_lookup_elem(&inflight, &id);
	struct destination to = {};
	struct start s;
	struct hist *h;
	__u32 err = 0;
	__u64 now;

	if (!found)
		return;
	now = bpf_ktime_get_ns();
	s = *found;
	bpf_map_delete_elem(&inflight, &id);

	to.cgroup = s.cgroup;
	to.slot = s.slot;
	fill_remote(sk, &to);
	if (newstate == TCP_ESTABLISHED) {
		h = hist_for(&connects, &to);
		if (h)
			hist_add(h, now - s.at);
	} else {
		err = sk->sk_err;
		if (!err)
			err = sk->sk_err_soft;
		failed(&to, err);
	}
	if (is_slow(now - s.at))
		slow(ctx, &s, &to, now, err);
}

SEC("tp_btf/inet_sock_set_state")
int connect_state(__u64 *ctx)
{
	const struct sock *sk = (void *)ctx[0];
	int oldstate = (int)ctx[1], newstate = (int)ctx[2];
	__u64 id = (__u64)sk;

	count(COUNT_CALLS);
	if (newstate == TCP_SYN_SENT)
		begin(id);
	else if (oldstate == TCP_SYN_SENT)
		end(ctx, sk, id, newstate);
	return 0;
}
