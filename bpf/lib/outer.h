/* SPDX-License-Identifier: GPL-2.0-only */
/* The outer headers of VXLAN (RFC 7348 5), byte for byte as the kernel's device
 * writes them. RFC 6935 allows the zero UDP checksum in IPv6. The outer IP header is
 * that of IPIP, too (ipip.h).
 */
#ifndef PYCNI_OUTER_H
#define PYCNI_OUTER_H

#include <linux/udp.h>

#include "flow.h"
#include "nexthops.h"
#include "self.h"
#include "tunnel.h"
#include "vxlan.h"

#define OUTER4 (sizeof(struct iphdr) + sizeof(struct vxlan_packet) + ETH_HLEN)
#define OUTER6 (sizeof(struct ipv6hdr) + sizeof(struct vxlan_packet) + ETH_HLEN)
#define L3_MAX 0xffff /* both families' length fields */

#define IP4_VERSION_IHL 0x45 /* no options */
#define IP4_DONT_FRAGMENT 0x4000
#define IP6_VERSION 0x60000000
#define IP6_TRAFFIC_CLASS_SHIFT 20

struct outer {
	__u32 l3_length; /* bytes, with the outer IP header */
	__u8 ecn;
	__u8 protocol; /* what the outer IP header carries */
	__be16 source_port;
	__be16 inner_proto;
};

static __always_inline __u16 checksum_ip4(const struct iphdr *ip4)
{
	const __u32 *words = (const void *)ip4;
	__u64 sum = 0;

	for (__u32 i = 0; i < sizeof(*ip4) / sizeof(*words); i++)
		sum += words[i];
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static __always_inline void write_outer_ip4(struct iphdr *ip4,
					    const struct outer *outer,
					    const union ip_addr *src,
					    const union ip_addr *dst)
{
	__u32 sum;

	*(__be16 *)ip4 = bpf_htons(IP4_VERSION_IHL << 8 | outer->ecn);
	ip4->tot_len = bpf_htons(outer->l3_length);
	*(__be32 *)&ip4->id = bpf_htonl(IP4_DONT_FRAGMENT);
	*(__be16 *)&ip4->ttl = bpf_htons(UNDERLAY_TTL << 8 | outer->protocol);
	ip4->saddr = src->words[3];
	ip4->daddr = dst->words[3];

	sum = bpf_htons(IP4_VERSION_IHL << 8 | outer->ecn);
	sum += bpf_htons(outer->l3_length);
	sum += bpf_htons(IP4_DONT_FRAGMENT);
	sum += bpf_htons(UNDERLAY_TTL << 8 | outer->protocol);
	sum += (src->words[3] & 0xffff) + (src->words[3] >> 16);
	sum += (dst->words[3] & 0xffff) + (dst->words[3] >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	ip4->check = ~(sum + (sum >> 16));
}

static __always_inline void write_outer_ip6(struct ipv6hdr *ip6,
					    const struct outer *outer,
					    const union ip_addr *src,
					    const union ip_addr *dst)
{
	*(__be32 *)ip6 =
		bpf_htonl(IP6_VERSION | outer->ecn << IP6_TRAFFIC_CLASS_SHIFT);
	ip6->payload_len = bpf_htons(outer->l3_length - sizeof(*ip6));
	*(__be16 *)&ip6->nexthdr =
		bpf_htons(outer->protocol << 8 | UNDERLAY_TTL);
	for (int i = 0; i < 4; i++) {
		ip6->saddr.in6_u.u6_addr32[i] = src->words[i];
		ip6->daddr.in6_u.u6_addr32[i] = dst->words[i];
	}
}

/* UDP, VXLAN and the inner Ethernet header. */
static __always_inline void write_outer_rest(struct vxlan_packet *vxlan,
					     const struct outer *outer,
					     __u32 udp_length)
{
	struct ethhdr *inner = (void *)(vxlan + 1);

	vxlan->udp.source = outer->source_port;
	vxlan->udp.dest = config.vxlan_port;
	*(__be32 *)&vxlan->udp.len = bpf_htonl(udp_length << 16);
	vxlan->flags = bpf_htonl(VXLAN_VNI_VALID);
	vxlan->vni = bpf_htonl(config.vni << VXLAN_VNI_SHIFT);
	copy_macs(inner, config.gateway_mac);
	inner->h_proto = outer->inner_proto;
}

#endif
