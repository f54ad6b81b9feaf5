/* SPDX-License-Identifier: GPL-2.0-only */
/* How a packet gets to another node: with outer headers of our own if a fresh
 * next hop is known, or else through the metadata device, for which the kernel
 * finds one. Both make the same bytes on the wire.
 */
#ifndef PYCNI_ENCAP_H
#define PYCNI_ENCAP_H

#include <linux/pkt_cls.h>

#include "ethernet.h"
#include "mtu.h"
#include "outer.h"
#include "tunnel.h"

/* FIXED_GSO: segments keep their size, for pods' MTU leaves room; UDP's may not
 * change at all. L2_ETH is for segmentation, which must find the inner IP
 * header; both names are younger than some distributions' headers.
 */
#define ENCAP_L2_ETH (1ULL << 6)
#define ENCAP_FLAGS                                             \
	(BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_ENCAP_L4_UDP | \
	 BPF_F_ADJ_ROOM_ENCAP_L2(ETH_HLEN) | ENCAP_L2_ETH)

/* For a packet on its way out of the overlay device. */
static __always_inline int encap(struct __sk_buff *ctx,
				 const union ip_addr *vtep)
{
	int drop = write_macs(ctx, config.gateway_mac, config.overlay_mac);

	if (!drop)
		drop = write_tunnel(ctx, vtep);
	return drop ? drop : TC_ACT_OK;
}

static __always_inline int
push_outer4(struct __sk_buff *ctx, const struct nexthop *nexthop,
	    const struct outer *outer, const union ip_addr *src,
	    const union ip_addr *dst)
{
	struct ethhdr *eth;

	if (bpf_skb_adjust_room(ctx, OUTER4, BPF_ADJ_ROOM_MAC,
				ENCAP_FLAGS | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4))
		return TC_ACT_UNSPEC;
	eth = get_head(ctx, ETH_HLEN + OUTER4);
	if (!eth)
		return -DROP_REWRITE_FAILED;
	copy_macs(eth, nexthop->dst_mac);
	eth->h_proto = bpf_htons(ETH_P_IP);
	write_outer_ip4((void *)(eth + 1), outer, src, dst);
	write_outer_rest((void *)(eth + 1) + sizeof(struct iphdr), outer,
			 outer->l3_length - sizeof(struct iphdr));
	return bpf_redirect(nexthop->ifindex, 0);
}

static __always_inline int
push_outer6(struct __sk_buff *ctx, const struct nexthop *nexthop,
	    const struct outer *outer, const union ip_addr *src,
	    const union ip_addr *dst)
{
	struct ethhdr *eth;

	if (bpf_skb_adjust_room(ctx, OUTER6, BPF_ADJ_ROOM_MAC,
				ENCAP_FLAGS | BPF_F_ADJ_ROOM_ENCAP_L3_IPV6))
		return TC_ACT_UNSPEC;
	eth = get_head(ctx, ETH_HLEN + OUTER6);
	if (!eth)
		return -DROP_REWRITE_FAILED;
	copy_macs(eth, nexthop->dst_mac);
	eth->h_proto = bpf_htons(ETH_P_IPV6);
	write_outer_ip6((void *)(eth + 1), outer, src, dst);
	write_outer_rest((void *)(eth + 1) + sizeof(struct ipv6hdr), outer,
			 outer->l3_length - sizeof(struct ipv6hdr));
	return bpf_redirect(nexthop->ifindex, 0);
}

/* A redirect, or TC_ACT_UNSPEC if the packet, untouched, is none for us: no
 * fresh next hop, longer than the way allows, or than a length field can say,
 * or bpf_skb_adjust_room() refuses it (encapsulated already, or segments of
 * another protocol than TCP and UDP).
 */
static __always_inline int encap_ourselves(struct __sk_buff *ctx,
					   const struct packet *packet,
					   const union ip_addr *vtep,
					   __u32 measured)
{
	struct self *own = get_self();
	struct nexthop *nexthop;
	struct outer outer = {};

	if (!own || !is_fresh(own))
		return TC_ACT_UNSPEC;
	nexthop = lookup_nexthop(vtep);
	if (!nexthop || measured > nexthop->mtu)
		return TC_ACT_UNSPEC;
	if (!ctx->gso_size && ctx->len - ETH_HLEN > nexthop->mtu)
		return TC_ACT_UNSPEC; /* of padding */

	outer.l3_length = ctx->len + sizeof(struct vxlan_packet);
	outer.l3_length += is_mapped_ip4(vtep) ? sizeof(struct iphdr) :
						 sizeof(struct ipv6hdr);
	if (outer.l3_length > L3_MAX)
		return TC_ACT_UNSPEC;
	if (!nexthop->used) /* not a write per packet: CPUs share the line */
		nexthop->used = 1;
	outer.ecn = packet->ecn; /* RFC 6040 4.1 */
	outer.source_port = choose_source_port(ctx, packet);
	outer.inner_proto = packet->l3_proto;
	if (is_mapped_ip4(vtep))
		return push_outer4(ctx, nexthop, &outer, &own->vtep, vtep);
	return push_outer6(ctx, nexthop, &outer, &own->vtep, vtep);
}

/* `measured` as measure_packet() says. */
static __always_inline int encap_and_redirect(struct __sk_buff *ctx,
					      const struct packet *packet,
					      const union ip_addr *vtep,
					      __u32 measured)
{
	int drop;

	if (config.own_encap) {
		int verdict = encap_ourselves(ctx, packet, vtep, measured);

		if (verdict != TC_ACT_UNSPEC)
			return verdict;
	}
	drop = encap(ctx, vtep);
	if (drop)
		return drop;
	return bpf_redirect(config.overlay_ifindex, 0);
}

#endif
