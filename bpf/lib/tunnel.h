/* SPDX-License-Identifier: GPL-2.0-only */
/* Tunnel metadata: what the VXLAN device says about the outer headers that a
 * packet came in with, and which ones it has to write.
 */
#pragma once

#include <linux/errno.h>

#include "config.h"
#include "self.h"

/* Before Linux 6.0, struct bpf_tunnel_key has no local address. Later kernels
 * accept that size, too.
 */
#define KEY_WITHOUT_LOCAL offsetof(struct bpf_tunnel_key, local_ipv4)

#define UNDERLAY_TTL 64

/* Of all errors of bpf_skb_get_tunnel_key(), that of a packet without metadata. */
#define NO_TUNNEL (-EINVAL)

/* The outer headers of a received packet. */
struct tunnel {
	__u32 vni;
	union ip_addr remote; /* source */
	union ip_addr local; /* destination; zero without tunnel_key_local */
};

/* 0, NO_TUNNEL, or another error: then nothing is known about the packet. */
static __always_inline long read_tunnel(struct __sk_buff *ctx, struct tunnel *tunnel)
{
	struct bpf_tunnel_key key = {};
	__u32 size = KEY_WITHOUT_LOCAL;
	long err;

	if (!config.vxlan_ifindex)
		return NO_TUNNEL;
	if (config.tunnel_key_local)
		size = sizeof(key);
	err = bpf_skb_get_tunnel_key(ctx, &key, size, 0);
	if (!err) {
		/* no other helper gives an address in host order */
		map_ip4(&tunnel->remote, bpf_htonl(key.remote_ipv4));
		map_ip4(&tunnel->local, bpf_htonl(key.local_ipv4));
	} else if (err == -EPROTO) { /* an IPv6 underlay */
		err = bpf_skb_get_tunnel_key(ctx, &key, size, BPF_F_TUNINFO_IPV6);
		__builtin_memcpy(&tunnel->remote, key.remote_ipv6, sizeof(tunnel->remote));
		__builtin_memcpy(&tunnel->local, key.local_ipv6, sizeof(tunnel->local));
	}
	tunnel->vni = key.tunnel_id;
	return err;
}

/* Tells the VXLAN device to send this packet to `vtep`; `flags` is 0 or
 * BPF_F_DONT_FRAGMENT, for the outer packet.
 */
static __always_inline int write_tunnel(struct __sk_buff *ctx, const union ip_addr *vtep,
					__u64 flags)
{
	__u32 size = KEY_WITHOUT_LOCAL;
	struct self *own = get_self();
	struct bpf_tunnel_key key = {
		.tunnel_id = config.vni,
		.tunnel_ttl = UNDERLAY_TTL,
	};

	if (!own)
		return -DROP_REWRITE_FAILED;

	/* No UDP checksum: the inner packet has its own. A VXLAN device receives
	 * such packets over IPv6 only if it is told to (udp6zerocsumrx).
	 */
	flags |= BPF_F_ZERO_CSUM_TX;
	if (is_mapped_ip4(vtep)) {
		key.remote_ipv4 = bpf_ntohl(vtep->words[3]);
		key.local_ipv4 = bpf_ntohl(own->vtep.words[3]);
	} else {
		flags |= BPF_F_TUNINFO_IPV6;
		for (int i = 0; i < 4; i++) {
			key.remote_ipv6[i] = vtep->words[i];
			key.local_ipv6[i] = own->vtep.words[i];
		}
	}
	/* Without it the kernel's route lookup chooses the source address. On a
	 * node with several, other nodes may know this one by another.
	 */
	if (config.tunnel_key_local)
		size = sizeof(key);
	if (bpf_skb_set_tunnel_key(ctx, &key, size, flags))
		return -DROP_REWRITE_FAILED;
	return 0;
}
