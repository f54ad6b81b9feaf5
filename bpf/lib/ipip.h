/* SPDX-License-Identifier: GPL-2.0-only */
/* Between nodes in IPIP: an outer IP header, and the inner packet right behind it
 * (RFC 2003, RFC 2473, RFC 4213 3). The bytes are those of the kernel's devices ipip,
 * sit and ip6tnl, which the other end may be.
 *
 * No device is behind these programs. What they cannot send leaves in VXLAN; what
 * they cannot take is dropped here, or by the guard in the host's stack.
 */
#ifndef PYCNI_IPIP_H
#define PYCNI_IPIP_H

#include <linux/if_packet.h>

#include "arrival.h"
#include "decap.h"
#include "direct.h"
#include "nexthops.h"
#include "outer.h"
#include "upper.h"
#include "verdict.h"
#include "vteps.h"

/* The headers that the pods' packets get are short enough for FIXED_GSO, as in
 * encap.h.
 */
static __always_inline int push_ipip4(struct __sk_buff *ctx,
				      const struct outer *outer,
				      const struct self *own,
				      const union ip_addr *vtep)
{
	struct ethhdr *eth;

	if (bpf_skb_adjust_room(ctx, sizeof(struct iphdr), BPF_ADJ_ROOM_MAC,
				BPF_F_ADJ_ROOM_FIXED_GSO |
					BPF_F_ADJ_ROOM_ENCAP_L3_IPV4))
		return NOT_OURS;
	eth = get_head(ctx, ETH_HLEN + sizeof(struct iphdr));
	if (!eth)
		return -DROP_REWRITE_FAILED;
	eth->h_proto = bpf_htons(ETH_P_IP);
	write_outer_ip4((void *)(eth + 1), outer, &own->vtep, vtep);
	return 0;
}

static __always_inline int push_ipip6(struct __sk_buff *ctx,
				      const struct outer *outer,
				      const struct self *own,
				      const union ip_addr *vtep)
{
	struct ethhdr *eth;

	if (bpf_skb_adjust_room(ctx, sizeof(struct ipv6hdr), BPF_ADJ_ROOM_MAC,
				BPF_F_ADJ_ROOM_FIXED_GSO |
					BPF_F_ADJ_ROOM_ENCAP_L3_IPV6))
		return NOT_OURS;
	eth = get_head(ctx, ETH_HLEN + sizeof(struct ipv6hdr));
	if (!eth)
		return -DROP_REWRITE_FAILED;
	eth->h_proto = bpf_htons(ETH_P_IPV6);
	write_outer_ip6((void *)(eth + 1), outer, &own->vtep, vtep);
	return 0;
}

/* NOT_OURS, and nothing is changed, if bpf_skb_adjust_room() refuses the packet, as
 * in encap.h. The MACs are still to be written.
 */
static __always_inline int push_ipip(struct __sk_buff *ctx,
				     const struct outer *outer,
				     const struct self *own,
				     const union ip_addr *vtep)
{
	if (is_mapped_ip4(vtep))
		return push_ipip4(ctx, outer, own, vtep);
	return push_ipip6(ctx, outer, own, vtep);
}

/* Nobody vouches for our next hops, or the kernel does not know the neighbour's MAC
 * now, and asks for it. NOT_OURS if the kernel names no way.
 */
static __noinline int send_ipip_by_kernels_table(struct __sk_buff *ctx,
						 const struct outer *outer,
						 const struct nexthop *nexthop,
						 const union ip_addr *vtep)
{
	struct bpf_fib_lookup fib = { .ifindex = config.stack_ifindex };
	struct bpf_redir_neigh neighbour = {};
	__u32 ifindex = nexthop->ifindex;
	struct self *own = get_self();
	long result = ask_kernel(ctx, vtep, &fib, 0);
	int verdict;

	if (!own || (result && result != BPF_FIB_LKUP_RET_NO_NEIGH))
		return NOT_OURS;
	verdict = push_ipip(ctx, outer, own, vtep);
	if (verdict)
		return verdict;
	if (!result) {
		if (write_macs(ctx, fib.dmac, fib.smac))
			return -DROP_REWRITE_FAILED;
		bpf_redirect(fib.ifindex, 0);
		return went(PATH_NODE, TC_ACT_REDIRECT);
	}
	/* Linux tells it without a neighbour, too, from 5.12 on. */
	if (fib.ifindex != config.stack_ifindex)
		ifindex = fib.ifindex;
	neighbour.nh_family = fib.family;
	for (int i = 0; i < 4; i++)
		neighbour.ipv6_nh[i] = fib.ipv6_dst[i];
	bpf_redirect_neigh(ifindex, &neighbour, sizeof(neighbour), 0);
	return went(PATH_NODE, TC_ACT_REDIRECT);
}

/* `measured` as measure_packet() says. NOT_OURS, and nothing is changed, if the
 * packet is longer than the way allows, and as push_ipip() says.
 */
static __always_inline int
send_in_ipip(struct __sk_buff *ctx, const struct packet *packet,
	     const struct self *own, struct nexthop *nexthop,
	     const union ip_addr *vtep, __u32 measured, bool fresh)
{
	struct outer outer = { .ecn = packet->ecn }; /* RFC 6040 4.1 */
	struct ethhdr *eth;
	int verdict;

	if (measured > nexthop->mtu ||
	    (!ctx->gso_size && ctx->len - ETH_HLEN > nexthop->mtu))
		return NOT_OURS;
	outer.protocol = packet->l3_proto == bpf_htons(ETH_P_IP) ?
				 IPPROTO_IPIP :
				 IPPROTO_IPV6;
	outer.l3_length = ctx->len - ETH_HLEN;
	outer.l3_length += is_mapped_ip4(vtep) ? sizeof(struct iphdr) :
						 sizeof(struct ipv6hdr);
	/* Segments get lengths of their own (inet_gso_segment(),
	 * ipv6_gso_segment()); as for "BIG TCP", the whole has none.
	 */
	if (outer.l3_length > L3_MAX)
		outer.l3_length = is_mapped_ip4(vtep) ? 0 :
							sizeof(struct ipv6hdr);
	if (!nexthop->used) /* as in encap.h */
		nexthop->used = 1;
	if (!fresh || nexthop->flags & NEXTHOP_UNRESOLVED)
		return send_ipip_by_kernels_table(ctx, &outer, nexthop, vtep);

	verdict = push_ipip(ctx, &outer, own, vtep);
	if (verdict)
		return verdict;
	eth = get_head(ctx, sizeof(*eth));
	if (!eth)
		return -DROP_REWRITE_FAILED;
	copy_macs(eth, nexthop->dst_mac);
	bpf_redirect(nexthop->ifindex, 0);
	return went(PATH_NODE, TC_ACT_REDIRECT);
}

/* What the outer header carries, and the bytes before that. The kernel's device
 * ip6tnl puts an option there unless it is told not to (RFC 2473 4.1).
 */
static __always_inline __u8 find_inner(struct __sk_buff *ctx,
				       const struct packet *outer,
				       __u32 *headers)
{
	struct extension options;

	*headers = outer->l4_off - ETH_HLEN;
	if (outer->l4_proto != IP6_DESTINATION ||
	    outer->l3_proto != bpf_htons(ETH_P_IPV6) ||
	    bpf_skb_load_bytes(ctx, outer->l4_off, &options, sizeof(options)))
		return outer->l4_proto;
	*headers += measure_extension(IP6_DESTINATION, &options);
	return options.next;
}

/* No fragment, without options, and intact: no IP layer looks at it after this. */
static __always_inline int check_outer4(struct __sk_buff *ctx)
{
	struct ethhdr *eth = get_head(ctx, ETH_HLEN + sizeof(struct iphdr));
	const struct iphdr *ip4 = (void *)(eth + 1);

	if (!eth)
		return -DROP_TRUNCATED;
	if (*(const __u8 *)ip4 != IP4_VERSION_IHL ||
	    ip4->frag_off & bpf_htons(IP4_FRAGMENT))
		return -DROP_HIDDEN_HEADER;
	return checksum_ip4(ip4) ? -DROP_BAD_HEADER : 0;
}

/* The Ethernet header that stays is the outer one. */
static __always_inline int pull_outer(struct __sk_buff *ctx, __u32 headers,
				      __be16 outer, __be16 inner)
{
	__u64 flags = DECAP_FLAGS;
	struct ethhdr *eth;

	if (config.decap_l3)
		flags = choose_decap_flags(outer, inner);
	if (bpf_skb_adjust_room(ctx, -(__s32)headers, BPF_ADJ_ROOM_MAC, flags))
		return -DROP_REWRITE_FAILED;
	ctx->queue_mapping = 0; /* was the uplink's */
	eth = get_head(ctx, sizeof(*eth));
	if (!eth)
		return -DROP_REWRITE_FAILED;
	eth->h_proto = inner;
	return 0;
}

/* The inner packet, from the node at `vtep`. `is_named`: skb->protocol is that of its
 * header. Before Linux 6.3 it may be that of the outer header; whoever receives the
 * packet behind a device finds out anew (eth_type_trans()).
 */
static __always_inline int deliver_inner(struct __sk_buff *ctx,
					 const struct packet *packet,
					 const union ip_addr *vtep,
					 bool is_named)
{
	struct route route = {};
	int drop;

	if (packet->scope)
		return packet->scope == SCOPE_LINK ? -DROP_LINK_LOCAL :
						     -DROP_MULTICAST;
	if (!is_behind(vtep, &packet->src) && !is_of_node(vtep, &packet->src))
		return -DROP_SPOOFED_INNER;
	drop = find_receiver(ctx, packet, &route);
	if (drop)
		return drop;
	if (!route.ep)
		return hand_to_stack(ctx, packet);
	return is_named ? deliver_to_pod(ctx, route.ep) :
			  send_to_host_end(route.ep);
}

/* IPIP to this node. NOT_OURS for all other packets: nothing is changed. */
static __always_inline int receive_ipip(struct __sk_buff *ctx,
					const struct packet *outer)
{
	__be16 l3_proto = bpf_htons(ETH_P_IP);
	struct packet packet = {};
	enum ecn_verdict ecn;
	__u32 headers;
	__u8 proto = find_inner(ctx, outer, &headers);
	__u32 end = end_packet(ctx, outer, ETH_HLEN);
	int drop = 0;

	if (!is_ipip(proto) || !is_own_vtep(&outer->dst) || outer->scope ||
	    ctx->pkt_type == PACKET_OTHERHOST)
		return NOT_OURS;
	if (!is_known_vtep(&outer->src))
		return -DROP_UNKNOWN_VTEP;
	if (outer->l3_proto == bpf_htons(ETH_P_IP))
		drop = check_outer4(ctx);
	if (proto == IPPROTO_IPV6)
		l3_proto = bpf_htons(ETH_P_IPV6);
	if (!drop)
		drop = pull_outer(ctx, headers, outer->l3_proto, l3_proto);
	if (!drop)
		drop = parse_packet(ctx, &packet);
	if (drop)
		return drop;
	if (ETH_HLEN + headers + packet.l3_length > end)
		return -DROP_TRUNCATED;

	ecn = merge_ecn(packet.ecn, outer->ecn);
	if (ecn == ECN_REFUSE)
		return -DROP_CONGESTED;
	if (ecn == ECN_CHANGE)
		drop = write_ecn(ctx, &packet, outer->ecn);
	return drop ? drop :
		      deliver_inner(ctx, &packet, &outer->src,
				    config.decap_l3 ||
					    l3_proto == outer->l3_proto);
}

#endif
