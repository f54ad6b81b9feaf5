/* SPDX-License-Identifier: GPL-2.0-only */
/* To another node: without outer headers or in IPIP if it takes such packets
 * (direct.h, ipip.h); in VXLAN with outer headers of our own if a fresh next hop is
 * known, else through the VXLAN device, for which the kernel finds one. The latter
 * two make the same bytes on the wire.
 */
#ifndef PYCNI_ENCAP_H
#define PYCNI_ENCAP_H

#include "direct.h"
#include "ethernet.h"
#include "ipip.h"
#include "mtu.h"
#include "outer.h"
#include "path_mtus.h"
#include "tunnel.h"
#include "verdict.h"

/* FIXED_GSO keeps the size of segments: the pods' MTU leaves room, and UDP's size
 * may not change at all. L2_ETH tells segmentation where the inner IP header is;
 * some distributions' headers lack both names.
 */
#define ENCAP_L2_ETH (1ULL << 6)
#define ENCAP_FLAGS                                               \
	(BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L4_UDP | \
	 BPF_F_ADJ_ROOM_ENCAP_L2(ETH_HLEN) | ENCAP_L2_ETH)

static __always_inline int push_outer4(struct __sk_buff *ctx,
				       const struct nexthop *nexthop,
				       const struct outer *outer,
				       const union ip_addr *src,
				       const union ip_addr *dst)
{
	struct ethhdr *eth;

	if (bpf_skb_adjust_room(ctx, OUTER4, BPF_ADJ_ROOM_MAC,
				ENCAP_FLAGS | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4))
		return NOT_OURS;
	eth = get_head(ctx, ETH_HLEN + OUTER4);
	if (!eth)
		return -DROP_REWRITE_FAILED;
	copy_macs(eth, nexthop->dst_mac);
	eth->h_proto = bpf_htons(ETH_P_IP);
	write_outer_ip4((void *)(eth + 1), outer, src, dst);
	write_outer_rest((void *)(eth + 1) + sizeof(struct iphdr), outer,
			 outer->l3_length - sizeof(struct iphdr));
	bpf_redirect(nexthop->ifindex, 0);
	return went(PATH_NODE, TC_ACT_REDIRECT);
}

static __always_inline int push_outer6(struct __sk_buff *ctx,
				       const struct nexthop *nexthop,
				       const struct outer *outer,
				       const union ip_addr *src,
				       const union ip_addr *dst)
{
	struct ethhdr *eth;

	if (bpf_skb_adjust_room(ctx, OUTER6, BPF_ADJ_ROOM_MAC,
				ENCAP_FLAGS | BPF_F_ADJ_ROOM_ENCAP_L3_IPV6))
		return NOT_OURS;
	eth = get_head(ctx, ETH_HLEN + OUTER6);
	if (!eth)
		return -DROP_REWRITE_FAILED;
	copy_macs(eth, nexthop->dst_mac);
	eth->h_proto = bpf_htons(ETH_P_IPV6);
	write_outer_ip6((void *)(eth + 1), outer, src, dst);
	write_outer_rest((void *)(eth + 1) + sizeof(struct ipv6hdr), outer,
			 outer->l3_length - sizeof(struct ipv6hdr));
	bpf_redirect(nexthop->ifindex, 0);
	return went(PATH_NODE, TC_ACT_REDIRECT);
}

/* NOT_OURS if the packet is longer than the way or a length field allows, or if
 * bpf_skb_adjust_room() refuses it: it has outer headers already, or segments of
 * another protocol than TCP and UDP.
 */
static __always_inline int
encap_ourselves(struct __sk_buff *ctx, const struct packet *packet,
		const struct self *own, struct nexthop *nexthop,
		const union ip_addr *vtep, __u32 measured)
{
	struct outer outer = {};

	if (measured > nexthop->mtu)
		return NOT_OURS;
	/* bytes behind the end of the IP packet, padding, count on the wire */
	if (!ctx->gso_size && ctx->len - ETH_HLEN > nexthop->mtu)
		return NOT_OURS;

	outer.l3_length = ctx->len + sizeof(struct vxlan_packet);
	outer.l3_length += is_mapped_ip4(vtep) ? sizeof(struct iphdr) :
						 sizeof(struct ipv6hdr);
	if (outer.l3_length > L3_MAX)
		return NOT_OURS;
	if (!nexthop->used) /* no write for each packet: CPUs share the line */
		nexthop->used = 1;
	outer.ecn = packet->ecn; /* RFC 6040 4.1 */
	outer.protocol = IPPROTO_UDP;
	outer.source_port = choose_source_port(ctx, packet);
	outer.inner_proto = packet->l3_proto;
	if (is_mapped_ip4(vtep))
		return push_outer4(ctx, nexthop, &outer, &own->vtep, vtep);
	return push_outer6(ctx, nexthop, &outer, &own->vtep, vtep);
}

static __noinline int prepare_for_device(struct __sk_buff *ctx,
					 const union ip_addr *vtep,
					 __u64 tunnel_flags)
{
	int drop = write_macs(ctx, config.gateway_mac, config.overlay_mac);

	return drop ? drop : write_tunnel(ctx, vtep, tunnel_flags);
}

static __always_inline int send_by_device(struct __sk_buff *ctx,
					  const union ip_addr *vtep,
					  __u64 tunnel_flags)
{
	int drop = prepare_for_device(ctx, vtep, tunnel_flags);

	if (drop)
		return drop;
	bpf_redirect(config.vxlan_ifindex, 0);
	return went(PATH_DEVICE, TC_ACT_REDIRECT);
}

enum exit {
	ANY_EXIT, /* whichever is fastest */
	THIS_DEVICE, /* the packet is on its way out of the VXLAN device */
};

/* The way of a known next hop, or NOT_OURS. Without an agent that vouches for it,
 * VXLAN is left to the device; any other packet needs only a MAC.
 *
 * `may_be_cut`: pods were told what fits without VXLAN. A packet that needs it all the
 * same may be too long then, and nobody can be told: the underlay cuts it, if it is
 * IPv4.
 */
static __always_inline int send_by_nexthop(struct __sk_buff *ctx,
					   const struct packet *packet,
					   const union ip_addr *vtep,
					   __u32 measured, enum exit exit,
					   bool *may_be_cut)
{
	struct self *own = get_self();
	struct nexthop *nexthop;
	bool fresh = own && is_fresh(own);

	if (!own || (!fresh && !config.direct && !config.ipip))
		return NOT_OURS;
	nexthop = lookup_nexthop(vtep);
	if (!nexthop)
		return NOT_OURS;
	if (config.direct && nexthop->flags & NEXTHOP_DIRECT) {
		*may_be_cut = true;
		return send_directly(ctx, packet, nexthop, vtep, measured,
				     fresh);
	}
	if (config.ipip && nexthop->flags & NEXTHOP_IPIP) {
		*may_be_cut = true;
		return send_in_ipip(ctx, packet, own, nexthop, vtep, measured,
				    fresh);
	}
	if (!fresh || !config.own_encap || exit != ANY_EXIT)
		return NOT_OURS;
	return encap_ourselves(ctx, packet, own, nexthop, vtep, measured);
}

/* Whether a path of which nothing is known is so wide because it is meant for IPIP. A
 * packet that takes VXLAN there may be longer than that leaves room for.
 */
static __always_inline bool is_for_ipip(__u32 path_mtu)
{
	return config.ipip && path_mtu == config.overlay_mtu;
}

/* The way out to another node. Every packet that leaves a pod or the host's stack
 * for another node passes here once, whoever makes the outer headers. What must
 * happen to each of them belongs at the top of this function.
 *
 * `measured` as measure_packet() says. For THIS_DEVICE it does not count, as the
 * stack has routes with the MTU of each narrow path. -DROP_TOO_BIG leaves the packet
 * unchanged.
 */
static __always_inline int send_to_node(struct __sk_buff *ctx,
					const struct packet *packet,
					const union ip_addr *vtep,
					__u32 measured, enum exit exit)
{
	__u32 path_mtu = config.overlay_mtu, sender_mtu;
	bool may_be_cut = false;
	int verdict = NOT_OURS;
	__u64 tunnel_flags;

	if (config.direct || config.ipip ||
	    (config.own_encap && exit == ANY_EXIT))
		verdict = send_by_nexthop(ctx, packet, vtep, measured, exit,
					  &may_be_cut);
	if (verdict != NOT_OURS)
		return verdict;
	if (!config.vxlan_ifindex)
		return -DROP_UNKNOWN_DESTINATION;

	if (exit == ANY_EXIT || config.ipip ||
	    packet->l3_proto == bpf_htons(ETH_P_IPV6))
		path_mtu = get_path_mtu(vtep);
	sender_mtu = get_sender_mtu(packet, path_mtu);
	may_be_cut = may_be_cut || sender_mtu > path_mtu ||
		     is_for_ipip(path_mtu);
	tunnel_flags = may_be_cut ? 0 : BPF_F_DONT_FRAGMENT;
	if (exit == ANY_EXIT)
		return measured > sender_mtu ?
			       -DROP_TOO_BIG :
			       send_by_device(ctx, vtep, tunnel_flags);
	verdict = prepare_for_device(ctx, vtep, tunnel_flags);
	return verdict ? verdict : went(PATH_DEVICE, TC_ACT_OK);
}

#endif
