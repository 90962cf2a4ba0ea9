// SPDX-License-Identifier: (GPL-2.0-only OR MIT)
//go:build ignore
// clang-format off
/*
 * How long an established connection waits in the accept queue until the server takes
 * it. It begins with SYN_RECV -> ESTABLISHED. Nothing tells its end without a
 * trampoline, but it leaves a mark: accept gives the connection its struct socket. So
 * a sweep looks every few milliseconds at the connections not yet seen accepted, while
 * there are any: by a timer of the program's own (Linux 5.15), else run by user space,
 * which costs a hundred times as much. The wait recorded is the time up to the last
 * sweep that still found it waiting: never too long, and too short by one interval at
 * most.
 *
 * Which ports to look at is learned from listen calls of watched processes, and told by
 * user space for those that listened before.
 */
#include "../headers/socket.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u16); /* local port, host byte order */
	__type(value, __u32); /* slot */
	__uint(max_entries, 256);
} ports SEC(".maps");

struct listener {
	__u32 slot;
	__u16 port;
	__u16 pad;
};

struct waiting {
	__u64 since;
	struct listener owner;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u64); /* struct sock * */
	__type(value, struct waiting);
	__uint(max_entries, 4096); /* a sweep visits each place, used or not */
} pending SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__type(key, struct listener);
	__type(value, struct hist);
	__uint(max_entries, 128);
} accepts SEC(".maps");

__u64 last_sweep;
__u64 added; /* 1: something may have been added since the last sweep */
__u64 left; /* what the last sweep found still waiting */

static __always_inline void learn(__u16 port)
{
	__u32 slot = slot_of(bpf_get_current_pid_tgid() >> 32);

	if (slot && bpf_map_update_elem(&ports, &port, &slot, BPF_ANY))
		count(LOST_SERIES);
}

static __always_inline void slow(void *ctx, const struct listener *l, __u64 now, __u64 wait)
{
	struct exemplar e = {};

	e.at = now;
	e.latency = wait;
	e.slot = l->slot;
	e.port = (__u16)(l->port << 8 | l->port >> 8);
	emit(ctx, &e);
}

static __always_inline void accepted(void *ctx, const struct listener *owner, __u64 since, __u64 now, __u64 last)
{
	__u64 wait = last > since ? last - since : 0;
	struct hist *h = hist_for(&accepts, owner);

	if (h)
		hist_add(h, wait);
	if (is_slow(wait))
		slow(ctx, owner, now, wait);
}

/* A connection that the server closes has been accepted, if only just now; one that
 * ends without a struct socket has been reset in the queue. */
static __always_inline void leaves(void *ctx, const struct sock *sk, __u64 id, int newstate)
{
	struct waiting *found = bpf_map_lookup_elem(&pending, &id), w;

	if (!found)
		return;
	w = *found;
	if (sk->sk_socket) {
		/* Who has deleted it records it: a sweep may run on another CPU. */
		if (bpf_map_delete_elem(&pending, &id))
			return;
		accepted(ctx, &w.owner, w.since, bpf_ktime_get_ns(), last_sweep);
	} else if (newstate == TCP_CLOSE) {
		bpf_map_delete_elem(&pending, &id);
	}
}

struct sweep {
	void *ctx;
	__u64 now;
	__u64 last;
	__u64 left;
};

static long look(void *map, const __u64 *id, struct waiting *w, struct sweep *s)
{
	struct listener owner = w->owner;
	__u64 since = w->since;
	void *socket = 0;

	if (bpf_probe_read_kernel(&socket, sizeof(socket), __builtin_preserve_access_index(&((struct sock *)*id)->sk_socket)) || !socket) {
		s->left++;
		return 0;
	}
	if (bpf_map_delete_elem(map, id))
		return 0;
	accepted(s->ctx, &owner, since, s->now, s->last);
	return 0;
}

static __always_inline void sweep_once(void *ctx)
{
	struct sweep s = {};

	s.ctx = ctx;
	s.now = bpf_ktime_get_ns();
	s.last = last_sweep;
	last_sweep = s.now;
	if (!added && !left)
		return;
	added = 0;
	bpf_for_each_map_elem(&pending, look, &s, 0);
	left = s.left;
}

/* ---- the timer ---------------------------------------------------------- */

volatile const __u64 sweep_ns = 0; /* 0: user space runs the sweep */

struct bpf_timer {
	__u64 opaque[2];
} __attribute__((aligned(8)));

struct clock {
	struct bpf_timer timer;
	__u32 made;
	__u32 ticking;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct clock);
	__uint(max_entries, 1);
} clocks SEC(".maps");

/* A timer has no context; only the perf buffer needs one, on kernels without timers. */
static long tick(void *map, __u32 *key, struct clock *c)
{
	c->ticking = 0; /* before looking: who adds from here on starts it again */
	sweep_once(0);
	if (added || left) {
		c->ticking = 1;
		bpf_timer_start(&c->timer, sweep_ns, 0);
	}
	return 0;
}

static __always_inline void start_ticking(void)
{
	__u32 zero = 0;
	struct clock *c = bpf_map_lookup_elem(&clocks, &zero);

	if (!c || c->ticking)
		return;
	if (!c->made) {
		if (!bpf_timer_init(&c->timer, &clocks, 1 /* CLOCK_MONOTONIC */))
			bpf_timer_set_callback(&c->timer, tick);
		c->made = 1;
	}
	c->ticking = 1;
	last_sweep = bpf_ktime_get_ns();
	bpf_timer_start(&c->timer, sweep_ns, 0);
}

SEC("tp_btf/inet_sock_set_state")
int accept_state(__u64 *ctx)
{
	const struct sock *sk = (void *)ctx[0];
	int oldstate = (int)ctx[1], newstate = (int)ctx[2];
	__u64 id = (__u64)sk;
	struct waiting w = {};
	__u32 *slot;
	__u16 port;

	if (newstate == TCP_LISTEN) {
		count(COUNT_CALLS);
		learn(sk->__sk_common.skc_num);
	} else if (oldstate == TCP_SYN_RECV && newstate == TCP_ESTABLISHED) {
		count(COUNT_CALLS);
		port = sk->__sk_common.skc_num;
		slot = bpf_map_lookup_elem(&ports, &port);
		if (!slot || sampled_out())
			return 0;
		w.since = bpf_ktime_get_ns();
		w.owner.slot = *slot;
		w.owner.port = port;
		if (bpf_map_update_elem(&pending, &id, &w, BPF_ANY))
			count(LOST_INFLIGHT);
		added = 1;
		if (sweep_ns)
			start_ticking();
	} else if (oldstate != TCP_LISTEN && newstate != TCP_ESTABLISHED && newstate != TCP_SYN_RECV && newstate != TCP_SYN_SENT) {
		count(COUNT_CALLS);
		leaves(ctx, sk, id, newstate);
	}
	return 0;
}

/* Never attached: user space runs it (BPF_PROG_TEST_RUN), where there is no timer. */
SEC("raw_tp")
int sweep(void *ctx)
{
	count(COUNT_CALLS);
	sweep_once(ctx);
	return 0;
}
