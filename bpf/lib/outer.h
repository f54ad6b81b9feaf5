/* SPDX-License-Identifier: GPL-2.0-only */
/* What stands before a packet between nodes, by `protocol`, which is what the outer IP
 * header carries:
 *
 *   IPPROTO_UDP                VXLAN (RFC 7348 5); RFC 6935 allows the zero UDP
 *                              checksum in IPv6
 *   IPPROTO_IPIP, IPPROTO_IPV6 the inner packet right away (RFC 2003, RFC 2473,
 *                              RFC 4213 3)
 *   NO_OUTER                   there is none: direct mode
 *
 * Byte for byte as the kernel's devices vxlan, ipip, sit and ip6tnl write it, which
 * the other end may be.
 */
#pragma once

#include <linux/udp.h>

#include "checksum.h"
#include "flow.h"
#include "self.h"
#include "tunnel.h"
#include "verdict.h"
#include "vxlan.h"

#define NO_OUTER 0
#define VXLAN_ROOM (sizeof(struct vxlan_packet) + ETH_HLEN)
#define L3_MAX 0xffff /* both families' length fields */

#define IP4_VERSION_IHL 0x45 /* no options */
#define IP6_VERSION 0x60000000
#define IP6_TRAFFIC_CLASS_SHIFT 20

/* FIXED_GSO keeps the size of segments: the pods' MTU leaves room, and UDP's size
 * may not change at all. L2_ETH tells segmentation where the inner IP header is;
 * some distributions' headers lack both names.
 */
#define PUSH_FLAGS BPF_F_ADJ_ROOM_FIXED_GSO
#define ENCAP_L2_ETH (1ULL << 6)
#define PUSH_VXLAN (BPF_F_ADJ_ROOM_ENCAP_L4_UDP | BPF_F_ADJ_ROOM_ENCAP_L2(ETH_HLEN) | ENCAP_L2_ETH)

/* NO_CSUM_RESET: a checksum that the NIC has verified stays verified. */
#define PULL_FLAGS (BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET)
/* From Linux 6.3 on; some distributions' headers lack the names. Without these
 * flags skb->protocol stays that of the outer header.
 */
#define DECAP_L3_IPV4 (1ULL << 7)
#define DECAP_L3_IPV6 (1ULL << 8)

/* What an IP header says beside its addresses. */
struct ip_head {
	__u32 length; /* bytes, with the header */
	__u32 tos;
	__u32 flags; /* IPv4: identification, flags and offset */
	__u32 protocol;
};

static __always_inline void write_ip4(struct iphdr *ip4, const struct ip_head *head,
				      const union ip_addr *src, const union ip_addr *dst)
{
	const __be32 words[] = {
		bpf_htonl(IP4_VERSION_IHL << 24 | head->tos << 16 | head->length),
		bpf_htonl(head->flags),
		bpf_htonl(UNDERLAY_TTL << 24 | head->protocol << 16),
		src->words[3],
		dst->words[3],
	};
	__u64 sum = 0;

	for (int i = 0; i < 5; i++) {
		((__be32 *)ip4)[i] = words[i];
		sum += words[i];
	}
	ip4->check = fold_checksum(sum);
}

static __always_inline void write_ip6(struct ipv6hdr *ip6, const struct ip_head *head,
				      const union ip_addr *src, const union ip_addr *dst)
{
	__be32 *words = (void *)ip6;

	words[0] = bpf_htonl(IP6_VERSION | head->tos << IP6_TRAFFIC_CLASS_SHIFT);
	words[1] =
		bpf_htonl((head->length - sizeof(*ip6)) << 16 | head->protocol << 8 | UNDERLAY_TTL);
	for (int i = 0; i < 4; i++) {
		ip6->saddr.in6_u.u6_addr32[i] = src->words[i];
		ip6->daddr.in6_u.u6_addr32[i] = dst->words[i];
	}
}

/* UDP, VXLAN and the inner Ethernet header. */
static __always_inline void write_vxlan(struct vxlan_packet *vxlan, __be16 source_port,
					__u32 udp_length, __be16 inner_proto)
{
	struct ethhdr *inner = (void *)(vxlan + 1);

	vxlan->udp.source = source_port;
	vxlan->udp.dest = config.vxlan_port;
	*(__be32 *)&vxlan->udp.len = bpf_htonl(udp_length << 16);
	vxlan->flags = bpf_htonl(VXLAN_VNI_VALID);
	vxlan->vni = bpf_htonl(config.vni << VXLAN_VNI_SHIFT);
	copy_macs(inner, config.gateway_mac);
	inner->h_proto = inner_proto;
}

/* Writes the headers before the inner packet, and `macs`, both of the outer Ethernet
 * header, unless that is NULL. NOT_OURS, and nothing is changed, if VXLAN cannot say
 * the length, or if bpf_skb_adjust_room() refuses the packet: it takes only segments
 * of TCP and UDP.
 */
static __always_inline int push_outer(struct __sk_buff *ctx, const struct packet *packet,
				      __u32 protocol, const struct self *own,
				      const union ip_addr *vtep, const void *macs)
{
	bool ip4 = is_mapped_ip4(vtep), vxlan = protocol == IPPROTO_UDP;
	__u32 l3_room = measure_ip_header(ip4);
	__u32 room = protocol ? l3_room + (vxlan ? VXLAN_ROOM : 0) : 0;
	__u64 flags = ip4 ? BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 : BPF_F_ADJ_ROOM_ENCAP_L3_IPV6;
	struct ip_head head = {
		.length = ctx->len - ETH_HLEN + room,
		.tos = packet->ecn, /* RFC 6040 4.1 */
		.flags = IP4_DONT_FRAGMENT,
		.protocol = protocol,
	};
	__be16 source_port = 0;
	struct ethhdr *eth;

	if (vxlan) {
		if (head.length > L3_MAX)
			return NOT_OURS;
		flags |= PUSH_VXLAN;
		source_port = choose_source_port(ctx, packet);
	} else if (head.length > L3_MAX) {
		/* Segments get lengths of their own (inet_gso_segment(),
		 * ipv6_gso_segment()); as for "BIG TCP", the whole has none.
		 */
		head.length = ip4 ? 0 : sizeof(struct ipv6hdr);
	}
	if (protocol && bpf_skb_adjust_room(ctx, room, BPF_ADJ_ROOM_MAC, PUSH_FLAGS | flags))
		return NOT_OURS;
	eth = get_head(ctx, ETH_HLEN + room);
	if (!eth)
		return -DROP_REWRITE_FAILED;
	if (macs)
		copy_macs(eth, macs);
	if (!protocol)
		return 0;
	if (ip4) {
		eth->h_proto = bpf_htons(ETH_P_IP);
		write_ip4((void *)(eth + 1), &head, &own->vtep, vtep);
	} else {
		eth->h_proto = bpf_htons(ETH_P_IPV6);
		write_ip6((void *)(eth + 1), &head, &own->vtep, vtep);
	}
	if (vxlan)
		write_vxlan((void *)(eth + 1) + l3_room, source_port, head.length - l3_room,
			    packet->l3_proto);
	return 0;
}

/* Removes the `headers` bytes between the Ethernet header, which stays, and the inner
 * IP header. NOT_OURS, and nothing is changed, if the helper refuses the packet.
 */
static __always_inline int pull_outer(struct __sk_buff *ctx, __u32 headers, __be16 outer,
				      __be16 inner)
{
	__u64 flags = PULL_FLAGS;
	struct ethhdr *eth;

	if (config.decap_l3 && outer != inner)
		flags |= inner == bpf_htons(ETH_P_IP) ? DECAP_L3_IPV4 : DECAP_L3_IPV6;
	if (bpf_skb_adjust_room(ctx, -(__s32)headers, BPF_ADJ_ROOM_MAC, flags))
		return NOT_OURS;
	ctx->queue_mapping = 0; /* was the uplink's */
	if (outer == inner)
		return 0;
	eth = get_head(ctx, sizeof(*eth));
	if (!eth)
		return -DROP_REWRITE_FAILED;
	eth->h_proto = inner;
	return 0;
}
