/* SPDX-License-Identifier: (GPL-2.0-only OR MIT) */
/* The fields of the kernel's sockets that the TCP probes read. */
#ifndef SOCKET_H
#define SOCKET_H

#include "probe.h"

#define AF_INET 2
#define AF_INET6 10

enum tcp_state {
	TCP_ESTABLISHED = 1,
	TCP_SYN_SENT = 2,
	TCP_SYN_RECV = 3,
	TCP_CLOSE = 7,
	TCP_LISTEN = 10,
};

struct in6_addr {
	__u8 addr[16];
};

struct sock_common {
	__u32 skc_daddr; /* network byte order */
	__u16 skc_dport; /* network byte order */
	__u16 skc_num; /* local port, host byte order */
	__u16 skc_family;
	__u8 skc_state;
	struct in6_addr skc_v6_daddr;
} __core;

struct kernfs_node {
	__u64 id;
} __core;

struct cgroup {
	struct kernfs_node *kn;
} __core;

struct sock_cgroup_data {
	struct cgroup *cgroup;
} __core;

struct sock {
	struct sock_common __sk_common;
	int sk_err;
	int sk_err_soft;
	void *sk_socket; /* NULL until accepted */
	struct sock_cgroup_data sk_cgrp_data;
} __core;

struct destination {
	__u64 cgroup;
	__u32 slot;
	__u16 family;
	__u16 port; /* network byte order */
	__u8 addr[16]; /* an IPv4 address takes the first four bytes */
};

/* fill_remote writes where a socket is connected to. */
static __always_inline void fill_remote(const struct sock *sk, struct destination *d)
{
	d->family = sk->__sk_common.skc_family;
	d->port = sk->__sk_common.skc_dport;
	if (d->family == AF_INET6) {
		__builtin_memcpy(d->addr, &sk->__sk_common.skc_v6_daddr, 16);
		return;
	}
	*(__u32 *)d->addr = sk->__sk_common.skc_daddr;
}

#endif
