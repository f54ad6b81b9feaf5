/* SPDX-License-Identifier: GPL-2.0-only */
/* VXLAN and IPIP that a pod makes by itself, and errors about paths between nodes that
 * it makes up. To pods it may send what it likes.
 */
#pragma once

#include "config.h"
#include "nodes.h"
#include "upper.h"

#define ICMP_ERROR 8 /* bytes before the IP header that it quotes */
#define ICMP4_UNREACHABLE 3 /* "fragmentation needed" among it, RFC 792 */
#define ICMP6_TOO_BIG 2 /* RFC 4443 3.2 */

/* Only a router between two nodes can say that a packet from one to the other was
 * too big. Whoever believes a pod sends less to that node, for all pods.
 */
static __always_inline int refuse_error(struct __sk_buff *ctx, const struct upper *upper)
{
	__u32 quoted = upper->off + ICMP_ERROR;
	union ip_addr dst = {};
	__be32 dst4;

	if (upper->proto == IPPROTO_ICMP && upper->type == ICMP4_UNREACHABLE) {
		quoted += offsetof(struct iphdr, daddr);
		if (bpf_skb_load_bytes(ctx, quoted, &dst4, sizeof(dst4)))
			return -DROP_HIDDEN_HEADER;
		map_ip4(&dst, dst4);
	} else if (upper->proto == IPPROTO_ICMPV6 && upper->type == ICMP6_TOO_BIG) {
		quoted += offsetof(struct ipv6hdr, daddr);
		if (bpf_skb_load_bytes(ctx, quoted, &dst, sizeof(dst)))
			return -DROP_HIDDEN_HEADER;
	} else {
		return 0;
	}
	return lookup_node(&dst) ? -DROP_FORGED_ERROR : 0;
}

static __always_inline bool is_ipip(__u8 proto)
{
	return proto == IPPROTO_IPIP || proto == IPPROTO_IPV6;
}

/* A packet that leaves a pod, or the overlay, for another than a pod: a node would
 * take VXLAN or IPIP for that of the node that it seems to come from. Fragments
 * behind the first pass, since they cannot become a packet without it.
 */
static __noinline int refuse_tunnel(struct __sk_buff *ctx, const struct packet *packet)
{
	struct upper upper = {};
	int drop = find_upper(ctx, packet, &upper);

	if (drop || !upper.present)
		return drop;
	if (config.ipip && is_ipip(upper.proto))
		return -DROP_FORGED_IPIP;
	if (upper.proto != IPPROTO_UDP)
		return refuse_error(ctx, &upper);
	return upper.ports[1] == config.vxlan_port ? -DROP_FORGED_VXLAN : 0;
}
