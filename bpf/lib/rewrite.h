/* SPDX-License-Identifier: GPL-2.0-only */
/* Other addresses and ports in a packet, with all sums right. In both families both
 * addresses are side by side, and so are the ports: each pair is written at once.
 */
#pragma once

#include <linux/tcp.h>
#include <linux/udp.h>

#include "parse.h"
#include "verdict.h"

#define ADDRESSES (2 * sizeof(union ip_addr))

/* Where the sum is that covers addresses and ports; 0: nowhere. SCTP's is a CRC of
 * its own bytes (RFC 9260 6.8).
 */
static __always_inline __u32 find_l4_sum(const struct packet *packet)
{
	switch (packet->l4_proto) {
	case IPPROTO_TCP:
		return packet->l4_off + offsetof(struct tcphdr, check);
	case IPPROTO_UDP:
		return packet->l4_off + offsetof(struct udphdr, check);
	default:
		return 0;
	}
}

static __always_inline int write_addresses4(struct __sk_buff *ctx, const struct flow_key *to,
					    __s64 change)
{
	__be32 both[2] = { to->src.words[3], to->dst.words[3] };

	if (bpf_l3_csum_replace(ctx, ETH_HLEN + offsetof(struct iphdr, check), 0, change, 0) ||
	    bpf_skb_store_bytes(ctx, ETH_HLEN + offsetof(struct iphdr, saddr), both, sizeof(both),
				0))
		return -DROP_REWRITE_FAILED;
	return 0;
}

/* A sum of the whole packet, of a NIC that computes one, changes with the addresses:
 * no sum of an IPv6 header makes up for them.
 */
static __always_inline int write_addresses6(struct __sk_buff *ctx, const struct flow_key *to,
					    __s64 change)
{
	if (bpf_skb_store_bytes(ctx, ETH_HLEN + offsetof(struct ipv6hdr, saddr), &to->src,
				ADDRESSES, 0))
		return -DROP_REWRITE_FAILED;
	bpf_csum_update(ctx, change); /* there may be no such sum */
	return 0;
}

/* What a sum covers changes by the difference of the addresses, in which the first
 * words of v4-mapped ones cancel out. Only with PSEUDO_HDR does a sum change that the
 * NIC will complete: it has the addresses in it, and not the ports. A UDP packet
 * without a sum stays so, and MANGLED_0 keeps a sum from looking like none.
 */
static __always_inline int write_l4(struct __sk_buff *ctx, const struct packet *packet,
				    const struct flow_key *from, const struct flow_key *to,
				    __s64 change)
{
	__u32 sum = find_l4_sum(packet);
	__u64 flags = packet->l4_proto == IPPROTO_UDP ? BPF_F_MARK_MANGLED_0 : 0;
	__be32 before, after;

	__builtin_memcpy(&before, &from->sport, sizeof(before));
	__builtin_memcpy(&after, &to->sport, sizeof(after));
	if (sum && (bpf_l4_csum_replace(ctx, sum, 0, change, BPF_F_PSEUDO_HDR | flags) ||
		    bpf_l4_csum_replace(ctx, sum, before, after, sizeof(after) | flags)))
		return -DROP_REWRITE_FAILED;
	if (before != after && bpf_skb_store_bytes(ctx, packet->l4_off, &after, sizeof(after), 0))
		return -DROP_REWRITE_FAILED;
	return 0;
}

/* `from` is the packet as it is, `to` as it shall be. Both belong to one family. */
static __noinline int rewrite_packet(struct __sk_buff *ctx, struct packet *packet,
				     const struct flow_key *from, const struct flow_key *to)
{
	__s64 change = bpf_csum_diff((void *)&from->src, ADDRESSES, (void *)&to->src, ADDRESSES, 0);
	int drop = write_l4(ctx, packet, from, to, change);

	if (!drop)
		drop = is_ip4(packet) ? write_addresses4(ctx, to, change) :
					write_addresses6(ctx, to, change);
	packet->src = to->src;
	packet->dst = to->dst;
	return drop;
}
