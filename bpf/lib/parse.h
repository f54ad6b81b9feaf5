/* SPDX-License-Identifier: GPL-2.0-only */
/* What the programs need to know about an IP packet, read once and checked.
 *
 * Almost nothing behind the IP header is read. A fragment, IP options or an IPv6
 * extension header do not change where a packet belongs. Where it matters what a
 * packet carries, see upper.h.
 *
 * The caller of a parser gives it a packet of zeros.
 */
#pragma once

#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include "address.h"
#include "ethernet.h"

#define IP4_DONT_FRAGMENT 0x4000 /* in frag_off, RFC 791 3.1 */
#define IP4_MORE_FRAGMENTS 0x2000
#define IP4_FRAGMENT_OFFSET 0x1fff

#define ECN_MASK 3 /* RFC 3168 5 */
#define IP6_ECN_SHIFT 4 /* in the second byte of the header */

/* How far a packet may go (RFC 4007 5). */
enum scope {
	SCOPE_GLOBAL,
	SCOPE_LINK, /* IPv6, to or from a link-local address */
	SCOPE_GROUP, /* to an IP or a MAC group */
};

struct packet {
	union ip_addr src;
	union ip_addr dst;
	__u8 src_mac[ETH_ALEN]; /* at an even offset, for copy_mac() */
	__be16 l3_proto; /* as in the Ethernet header */
	__u32 l3_length; /* bytes, from the IP header on */
	__u32 l4_off; /* bytes, from the Ethernet header on */
	__u8 l4_proto; /* IPv6: the first next header */
	__u8 ecn; /* RFC 3168 5 */
	__be16 frag_off; /* IPv4: flags and offset; IPv6 says it in l4_proto */
	__u8 scope; /* enum scope */
	__u8 l3_off; /* bytes, from the Ethernet header on */
};

/* Of a packet that was parsed. */
static __always_inline bool is_ip4(const struct packet *packet)
{
	return packet->l3_proto == bpf_htons(ETH_P_IP);
}

/* Bytes, without options. */
static __always_inline __u32 measure_ip_header(bool ip4)
{
	return ip4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
}

static __always_inline bool is_fragment4(const struct packet *packet)
{
	return packet->frag_off & bpf_htons(IP4_MORE_FRAGMENTS | IP4_FRAGMENT_OFFSET);
}

/* Without what is behind the IP header, in IPv4. */
static __always_inline bool is_later_fragment4(const struct packet *packet)
{
	return packet->frag_off & bpf_htons(IP4_FRAGMENT_OFFSET);
}

/* In IPv6 only one without other extension headers before. */
static __always_inline bool is_fragment(const struct packet *packet)
{
	return is_fragment4(packet) || packet->l4_proto == IPPROTO_FRAGMENT;
}

static __always_inline int parse_ip4(struct __sk_buff *ctx, struct packet *packet, __u32 l3_off)
{
	struct iphdr *ip4 = pull_head(ctx, l3_off + sizeof(*ip4));
	__u32 header;

	if (!ip4)
		return -DROP_TRUNCATED;
	ip4 = (void *)ip4 + l3_off;

	header = ip4->ihl * 4;
	packet->l3_length = bpf_ntohs(ip4->tot_len);
	/* A GSO packet above 64 KiB ("BIG TCP") cannot say its length. */
	if (!packet->l3_length && ctx->gso_size)
		packet->l3_length = ctx->len - l3_off;
	if (ip4->version != 4 || header < sizeof(*ip4) || packet->l3_length < header)
		return -DROP_BAD_HEADER;

	map_ip4(&packet->src, ip4->saddr);
	map_ip4(&packet->dst, ip4->daddr);
	packet->l4_off = l3_off + header;
	packet->l4_proto = ip4->protocol;
	packet->ecn = ip4->tos & ECN_MASK;
	packet->frag_off = ip4->frag_off;
	return 0;
}

static __always_inline int parse_ip6(struct __sk_buff *ctx, struct packet *packet, __u32 l3_off)
{
	struct ipv6hdr *ip6 = pull_head(ctx, l3_off + sizeof(*ip6));

	if (!ip6)
		return -DROP_TRUNCATED;
	ip6 = (void *)ip6 + l3_off;

	if (ip6->version != 6)
		return -DROP_BAD_HEADER;

	packet->l3_length = sizeof(*ip6) + bpf_ntohs(ip6->payload_len);
	copy_ip6(&packet->src, &ip6->saddr);
	copy_ip6(&packet->dst, &ip6->daddr);
	packet->l4_off = l3_off + sizeof(*ip6);
	packet->l4_proto = ip6->nexthdr;
	packet->ecn = ip6->flow_lbl[0] >> IP6_ECN_SHIFT & ECN_MASK;
	if (is_link_local6(&packet->src) || is_link_local6(&packet->dst))
		packet->scope = SCOPE_LINK;

	/* Such an address would be found in our maps as an IPv4 address. */
	if (is_mapped_ip4(&packet->src) || is_mapped_ip4(&packet->dst))
		return -DROP_BAD_HEADER;
	return 0;
}

/* `off`: where the Ethernet header begins. In a packet that still has its outer
 * headers, that is the inner one.
 */
static __always_inline int parse_packet_at(struct __sk_buff *ctx, struct packet *packet, __u32 off)
{
	struct ethhdr *eth = pull_head(ctx, off + sizeof(*eth));
	bool group;
	int drop;

	if (!eth)
		return -DROP_TRUNCATED;
	/* The kernel keeps a VLAN tag outside of the bytes. The packet belongs to
	 * another network.
	 */
	if (ctx->vlan_present)
		return -DROP_UNKNOWN_L3;

	eth = (void *)eth + off;
	copy_mac(packet->src_mac, eth->h_source);
	group = eth->h_dest[0] & 1;
	packet->l3_proto = eth->h_proto;
	packet->l3_off = off + ETH_HLEN;

	switch (eth->h_proto) {
	case bpf_htons(ETH_P_IP):
		drop = parse_ip4(ctx, packet, off + ETH_HLEN);
		break;
	case bpf_htons(ETH_P_IPV6):
		drop = parse_ip6(ctx, packet, off + ETH_HLEN);
		break;
	default:
		return -DROP_UNKNOWN_L3;
	}
	if (drop)
		return drop;

	if (off + ETH_HLEN + packet->l3_length > ctx->len)
		return -DROP_TRUNCATED;
	if (group || is_multicast(&packet->dst))
		packet->scope = SCOPE_GROUP;
	return 0;
}

static __always_inline int parse_packet(struct __sk_buff *ctx, struct packet *packet)
{
	return parse_packet_at(ctx, packet, 0);
}
