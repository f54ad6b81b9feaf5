/* SPDX-License-Identifier: GPL-2.0-only */
/* From the wire into a pod: a program of ours removes the outer headers. It takes
 * only packets that are plain in every respect. All others are NOT_OURS: they go
 * on unchanged to the kernel's VXLAN device and to from_overlay behind it, which
 * decide and count.
 */
#ifndef PYCNI_DECAP_H
#define PYCNI_DECAP_H

#include <linux/if_packet.h>

#include "classify.h"
#include "deliver.h"
#include "direct.h"
#include "messages.h"
#include "outer.h"
#include "remotes.h"
#include "verdict.h"

/* From Linux 6.3 on; some distributions' headers lack the names. Without these
 * flags skb->protocol stays that of the outer header.
 */
#define DECAP_L3_IPV4 (1ULL << 7)
#define DECAP_L3_IPV6 (1ULL << 8)
/* NO_CSUM_RESET: a checksum that the NIC has verified stays verified. */
#define DECAP_FLAGS (BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET)

/* What is read of the outer headers. */
struct underlay {
	union ip_addr src;
	__u32 l3_length;
	__u32 headers; /* bytes between the two Ethernet headers, with one */
	__be16 l3_proto;
	__u8 src_mac[ETH_ALEN]; /* at an even place, as copy_mac() needs it */
	__u8 ecn;
};

/* To this node, without options, no fragment. */
static __always_inline bool read_outer4(const struct iphdr *ip4,
					const struct self *own,
					struct underlay *from)
{
	if (*(const __u8 *)ip4 != IP4_VERSION_IHL ||
	    ip4->protocol != IPPROTO_UDP ||
	    ip4->frag_off & bpf_htons(IP4_FRAGMENT) ||
	    ip4->daddr != own->vtep.words[3] || checksum_ip4(ip4))
		return false;
	map_ip4(&from->src, ip4->saddr);
	from->l3_length = bpf_ntohs(ip4->tot_len);
	from->headers = OUTER4;
	from->l3_proto = bpf_htons(ETH_P_IP);
	from->ecn = read_ecn4(ip4);
	return true;
}

static __always_inline bool read_outer6(const struct ipv6hdr *ip6,
					const struct self *own,
					struct underlay *from)
{
	union ip_addr dst;

	copy_ip6(&dst, &ip6->daddr);
	if (ip6->version != 6 || ip6->nexthdr != IPPROTO_UDP ||
	    !same_address(&dst, &own->vtep))
		return false;
	copy_ip6(&from->src, &ip6->saddr);
	from->l3_length = sizeof(*ip6) + bpf_ntohs(ip6->payload_len);
	from->headers = OUTER6;
	from->l3_proto = bpf_htons(ETH_P_IPV6);
	from->ecn = read_ecn6(ip6);
	return true;
}

/* Packets with a UDP checksum go to the kernel, which verifies it. So do those
 * with reserved bits set, which the kernel accepts or refuses.
 */
static __always_inline bool is_plain_vxlan(const struct vxlan_packet *vxlan,
					   __u32 length)
{
	return vxlan->udp.dest == config.vxlan_port && !vxlan->udp.check &&
	       bpf_ntohs(vxlan->udp.len) == length &&
	       !has_reserved_bits(vxlan) && !check_overlay(vxlan);
}

/* GRO leaves marks of the tunnel in a merged packet, and no helper removes them.
 * Such a packet may enter a pod only if nothing cuts it into segments again by
 * those marks. A TCP socket does not. A UDP socket does, and so does the device
 * by which a pod forwards the packet.
 */
static __always_inline bool may_skip_kernel(struct __sk_buff *ctx,
					    const struct packet *packet,
					    const struct endpoint *ep)
{
	if (ep->flags & ENDPOINT_SHAPED)
		return false;
	if (!ctx->gso_size)
		return true;
	return packet->l4_proto == IPPROTO_TCP &&
	       !(ep->flags & ENDPOINT_FORWARDS);
}

static __always_inline __u64 choose_decap_flags(__be16 outer, __be16 inner)
{
	if (outer == inner)
		return DECAP_FLAGS;
	return DECAP_FLAGS |
	       (inner == bpf_htons(ETH_P_IP) ? DECAP_L3_IPV4 : DECAP_L3_IPV6);
}

/* The Ethernet header that stays is the outer one. */
static __always_inline int remove_outer(struct __sk_buff *ctx,
					const struct packet *packet,
					const struct underlay *from)
{
	struct ethhdr *eth;

	if (bpf_skb_adjust_room(ctx, -(__s32)from->headers, BPF_ADJ_ROOM_MAC,
				choose_decap_flags(from->l3_proto,
						   packet->l3_proto)))
		return NOT_OURS;
	bpf_csum_level(ctx, BPF_CSUM_LEVEL_DEC);
	ctx->queue_mapping = 0; /* was the uplink's */
	if (from->l3_proto == packet->l3_proto)
		return 0;
	eth = get_head(ctx, sizeof(*eth));
	if (!eth)
		return -DROP_REWRITE_FAILED;
	eth->h_proto = packet->l3_proto;
	return 0;
}

static __always_inline int write_ecn(struct __sk_buff *ctx,
				     const struct packet *packet, __u8 ecn)
{
	if (packet->l3_proto == bpf_htons(ETH_P_IP))
		return write_ecn4(ctx, ecn);
	return write_ecn6(ctx, ecn);
}

/* Every VTEP in `remotes` is in `vteps`, so is_behind() checks the outer source,
 * too. What a node sends from its own address goes to from_overlay.
 */
static __always_inline int receive_inner(struct __sk_buff *ctx,
					 const struct underlay *from)
{
	struct packet packet = {};
	struct route route = {};
	enum ecn_verdict ecn;
	int verdict;

	if (parse_packet_at(ctx, &packet, from->headers) || packet.scope ||
	    check_messages(ctx, &packet, from->headers + ETH_HLEN))
		return NOT_OURS;
	if (packet.l3_proto != from->l3_proto && !config.decap_l3)
		return NOT_OURS;
	ecn = merge_ecn(packet.ecn, from->ecn);
	if (ecn == ECN_REFUSE)
		return NOT_OURS;
	if (!is_behind(&from->src, &packet.src))
		return NOT_OURS;
	if (config.direct && !may_be_from(ctx, from->src_mac, &from->src))
		return NOT_OURS;
	if (classify_here(&packet.dst, &route) != LOCAL_POD ||
	    !may_skip_kernel(ctx, &packet, route.ep))
		return NOT_OURS;

	verdict = remove_outer(ctx, &packet, from);
	if (!verdict && ecn == ECN_CHANGE)
		verdict = write_ecn(ctx, &packet, from->ecn);
	return verdict ? verdict : deliver_to_pod(ctx, route.ep);
}

static __always_inline int decap_ourselves4(struct __sk_buff *ctx,
					    const struct self *own)
{
	struct ethhdr *eth = pull_head(ctx, ETH_HLEN + OUTER4);
	struct underlay from = {};

	if (!eth || !read_outer4((void *)(eth + 1), own, &from) ||
	    ETH_HLEN + from.l3_length != ctx->len ||
	    !is_plain_vxlan((void *)(eth + 1) + sizeof(struct iphdr),
			    from.l3_length - sizeof(struct iphdr)))
		return NOT_OURS;
	copy_mac(from.src_mac, eth->h_source);
	return receive_inner(ctx, &from);
}

static __always_inline int decap_ourselves6(struct __sk_buff *ctx,
					    const struct self *own)
{
	struct ethhdr *eth = pull_head(ctx, ETH_HLEN + OUTER6);
	struct underlay from = {};

	if (!eth || !read_outer6((void *)(eth + 1), own, &from) ||
	    ETH_HLEN + from.l3_length != ctx->len ||
	    !is_plain_vxlan((void *)(eth + 1) + sizeof(struct ipv6hdr),
			    from.l3_length - sizeof(struct ipv6hdr)))
		return NOT_OURS;
	copy_mac(from.src_mac, eth->h_source);
	return receive_inner(ctx, &from);
}

/* Delivered to a pod, dropped, or NOT_OURS. */
static __always_inline int decap_ourselves(struct __sk_buff *ctx)
{
	struct self *own = get_self();

	if (!own || ctx->pkt_type != PACKET_HOST || ctx->vlan_present)
		return NOT_OURS;
	if (ctx->protocol == bpf_htons(ETH_P_IP) && is_mapped_ip4(&own->vtep))
		return decap_ourselves4(ctx, own);
	if (ctx->protocol == bpf_htons(ETH_P_IPV6))
		return decap_ourselves6(ctx, own);
	return NOT_OURS;
}

#endif
