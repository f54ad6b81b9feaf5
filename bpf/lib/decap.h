/* SPDX-License-Identifier: GPL-2.0-only */
/* From the wire into a pod: VXLAN unwrapped in our own program. Only what is
 * plain in every respect; all else goes on untouched, to the kernel's device
 * and from_overlay behind it, which decide and count. So TC_ACT_UNSPEC is "not
 * for us" throughout.
 */
#ifndef PYCNI_DECAP_H
#define PYCNI_DECAP_H

#include <linux/if_packet.h>
#include <linux/pkt_cls.h>

#include "deliver.h"
#include "endpoints.h"
#include "outer.h"
#include "remotes.h"

/* Newer than some distributions' headers, as the kernel that knows them is:
 * without them skb->protocol stays that of the outer header (6.3).
 */
#define DECAP_L3_IPV4 (1ULL << 7)
#define DECAP_L3_IPV6 (1ULL << 8)
/* NO_CSUM_RESET: what the NIC has verified stays verified. */
#define DECAP_FLAGS (BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET)

/* What is read of the outer headers. */
struct underlay {
	union ip_addr src;
	__u32 l3_length;
	__u8 ecn;
};

/* No options, no fragment, to us. */
static __always_inline bool read_outer4(const struct iphdr *ip4,
					struct underlay *from)
{
	struct self *own = get_self();

	if (*(const __u8 *)ip4 != IP4_VERSION_IHL ||
	    ip4->protocol != IPPROTO_UDP ||
	    ip4->frag_off & bpf_htons(IP4_FRAGMENT) || !own ||
	    ip4->daddr != own->vtep.words[3] || !is_mapped_ip4(&own->vtep) ||
	    checksum_ip4(ip4))
		return false;
	map_ip4(&from->src, ip4->saddr);
	from->l3_length = bpf_ntohs(ip4->tot_len);
	from->ecn = read_ecn4(ip4);
	return true;
}

static __always_inline bool read_outer6(const struct ipv6hdr *ip6,
					struct underlay *from)
{
	struct self *own = get_self();
	union ip_addr dst;

	copy_ip6(&dst, &ip6->daddr);
	if (ip6->version != 6 || ip6->nexthdr != IPPROTO_UDP || !own ||
	    !same_address(&dst, &own->vtep))
		return false;
	copy_ip6(&from->src, &ip6->saddr);
	from->l3_length = sizeof(*ip6) + bpf_ntohs(ip6->payload_len);
	from->ecn = read_ecn6(ip6);
	return true;
}

/* A UDP checksum is none of ours to verify; other flags than the I flag, and
 * anything in the reserved bits, are the kernel's to refuse (RFC 7348 5).
 */
static __always_inline bool is_plain_vxlan(const struct vxlan_packet *vxlan,
					   __u32 length)
{
	return vxlan->udp.dest == config.vxlan_port && !vxlan->udp.check &&
	       bpf_ntohs(vxlan->udp.len) == length &&
	       vxlan->flags == bpf_htonl(VXLAN_VNI_VALID) &&
	       vxlan->vni == bpf_htonl(config.vni << VXLAN_VNI_SHIFT);
}

/* Since `remotes` names no VTEP that is not in `vteps`, this is the check of the
 * outer source too. A node's own address inside is from_overlay's.
 */
static __always_inline bool is_sender(const union ip_addr *vtep,
				      const union ip_addr *src)
{
	struct remote *remote = lookup_remote(src);

	return remote && same_address(&remote->vtep, vtep);
}

/* GRO of VXLAN, and a veth that another of our programs sent into, leave marks
 * of the tunnel in the skb that no helper takes away. A socket does not mind,
 * for TCP. UDP's segments are cut apart in the socket, by those marks, so they
 * are the kernel's; and what a pod may forward to be cut apart elsewhere.
 */
static __always_inline bool is_harmless(struct __sk_buff *ctx,
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

static __always_inline int unwrap(struct __sk_buff *ctx,
				  const struct packet *packet,
				  const struct endpoint *ep, __be16 l3_proto,
				  __u32 outer, enum ecn_verdict ecn,
				  __u8 outer_ecn)
{
	struct ethhdr *eth;

	if (bpf_skb_adjust_room(ctx, -(__s32)outer, BPF_ADJ_ROOM_MAC,
				choose_decap_flags(l3_proto,
						   packet->l3_proto)))
		return TC_ACT_UNSPEC;
	bpf_csum_level(ctx, BPF_CSUM_LEVEL_DEC);
	eth = get_head(ctx, sizeof(*eth));
	if (!eth)
		return -DROP_REWRITE_FAILED;
	copy_mac(eth->h_dest, ep->mac);
	copy_mac(eth->h_source, config.gateway_mac);
	eth->h_proto = packet->l3_proto;
	if (ecn == ECN_CHANGE) {
		int drop = packet->l3_proto == bpf_htons(ETH_P_IP) ?
				   write_ecn4(ctx, outer_ecn) :
				   write_ecn6(ctx, outer_ecn);

		if (drop)
			return drop;
	}
	ctx->queue_mapping = 0; /* the uplink's */
	return redirect_into_pod(ctx, ep->ifindex);
}

/* `outer` is how many bytes there are between the two Ethernet headers, with
 * one of them.
 */
static __always_inline int receive_inner(struct __sk_buff *ctx,
					 const struct underlay *from,
					 __be16 l3_proto, __u32 outer)
{
	struct packet packet = {};
	enum ecn_verdict ecn;
	struct endpoint *ep;

	if (parse_packet_at(ctx, &packet, outer) || packet.multicast)
		return TC_ACT_UNSPEC;
	if (packet.l3_proto != l3_proto && !config.decap_l3)
		return TC_ACT_UNSPEC;
	ecn = merge_ecn(packet.ecn, from->ecn);
	if (ecn == ECN_REFUSE)
		return TC_ACT_UNSPEC;
	if (!is_sender(&from->src, &packet.src))
		return TC_ACT_UNSPEC;
	ep = lookup_endpoint(&packet.dst);
	if (!ep || !is_harmless(ctx, &packet, ep))
		return TC_ACT_UNSPEC;
	return unwrap(ctx, &packet, ep, l3_proto, outer, ecn, from->ecn);
}

static __always_inline int decap_ourselves4(struct __sk_buff *ctx)
{
	struct ethhdr *eth = pull_head(ctx, ETH_HLEN + OUTER4);
	struct underlay from = {};

	if (!eth || !read_outer4((void *)(eth + 1), &from) ||
	    ETH_HLEN + from.l3_length != ctx->len ||
	    !is_plain_vxlan((void *)(eth + 1) + sizeof(struct iphdr),
			    from.l3_length - sizeof(struct iphdr)))
		return TC_ACT_UNSPEC;
	return receive_inner(ctx, &from, bpf_htons(ETH_P_IP), OUTER4);
}

static __always_inline int decap_ourselves6(struct __sk_buff *ctx)
{
	struct ethhdr *eth = pull_head(ctx, ETH_HLEN + OUTER6);
	struct underlay from = {};

	if (!eth || !read_outer6((void *)(eth + 1), &from) ||
	    ETH_HLEN + from.l3_length != ctx->len ||
	    !is_plain_vxlan((void *)(eth + 1) + sizeof(struct ipv6hdr),
			    from.l3_length - sizeof(struct ipv6hdr)))
		return TC_ACT_UNSPEC;
	return receive_inner(ctx, &from, bpf_htons(ETH_P_IPV6), OUTER6);
}

/* Delivered to a pod, or TC_ACT_UNSPEC. */
static __always_inline int decap_ourselves(struct __sk_buff *ctx)
{
	struct self *own = get_self();

	if (!own || ctx->pkt_type != PACKET_HOST || ctx->vlan_present)
		return TC_ACT_UNSPEC;
	if (ctx->protocol == bpf_htons(ETH_P_IP) && is_mapped_ip4(&own->vtep))
		return decap_ourselves4(ctx);
	if (ctx->protocol == bpf_htons(ETH_P_IPV6))
		return decap_ourselves6(ctx);
	return TC_ACT_UNSPEC;
}

#endif
