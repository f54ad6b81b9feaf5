/* SPDX-License-Identifier: GPL-2.0-only */
/* Packets to another node's own address that are too big for the path. What is too
 * big for another node's pods goes to the host's stack, which cuts it or answers
 * with an ICMP error. These it would route out of the uplink, so the program does
 * both itself.
 */
#pragma once

#include "deliver.h"
#include "encap.h"
#include "mtu.h"
#include "path_mtus.h"

/* Bytes of the packet in the error: its headers and ports, whatever options it
 * has. A multiple of 4, for bpf_csum_diff().
 */
#define QUOTE 128
#define INTERNETWORK_CONTROL 0xc0 /* precedence of errors, RFC 1812 4.3.2.5 */
#define UNREACHABLE 3 /* RFC 792 */
#define FRAGMENTATION_NEEDED 4
#define PACKET_TOO_BIG 2

/* The same bytes in ICMP (RFC 1191 4), where half of the MTU's are unused, and in
 * ICMPv6 (RFC 4443 3.2). <linux/icmp.h> needs a libc for BPF.
 */
struct icmp_error {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be32 mtu;
	__u8 quote[QUOTE];
};

/* Cuts the packet to its quote and makes room for `headers` before it. This
 * linearizes the packet, and takes the segments' size away (bpf_skb_change_tail()
 * in bpf-helpers(7)). The room is where an Ethernet header ends.
 */
static __always_inline void *make_room(struct __sk_buff *ctx, __u32 headers)
{
	struct ethhdr *eth;

	if (bpf_skb_change_tail(ctx, ETH_HLEN + QUOTE, 0) ||
	    bpf_skb_adjust_room(ctx, headers, BPF_ADJ_ROOM_MAC, 0))
		return NULL;
	eth = pull_head(ctx, ETH_HLEN + headers + QUOTE);
	return eth ? eth + 1 : NULL;
}

static __always_inline int answer_too_big(struct __sk_buff *ctx, const struct packet *packet,
					  __u32 mtu)
{
	bool ip4 = is_ip4(packet);
	__u32 l3_room = measure_ip_header(ip4);
	union ip_addr gateway = ip4 ? config.gateway4 : config.gateway6;
	struct ip_head head = { .length = l3_room + sizeof(struct icmp_error) };
	struct icmp_error *error;
	void *ip;
	int drop;

	if (packet->l3_length < QUOTE)
		return -DROP_TOO_BIG;
	ip = make_room(ctx, head.length - QUOTE);
	if (!ip)
		return -DROP_REWRITE_FAILED;
	error = ip + l3_room;
	error->type = ip4 ? UNREACHABLE : PACKET_TOO_BIG;
	error->code = ip4 ? FRAGMENTATION_NEEDED : 0;
	error->checksum = 0;
	error->mtu = bpf_htonl(mtu);
	if (ip4) {
		head.tos = INTERNETWORK_CONTROL;
		head.protocol = IPPROTO_ICMP;
		write_ip4(ip, &head, &gateway, &packet->src);
		error->checksum = checksum_bytes(error, sizeof(*error), 0);
	} else {
		head.protocol = IPPROTO_ICMPV6;
		write_ip6(ip, &head, &gateway, &packet->src);
		error->checksum = checksum_icmp6(ip, sizeof(*error));
	}
	drop = write_macs(ctx, packet->src_mac, config.gateway_mac);
	return drop ? drop : enter_pair(ctx, ctx->ifindex, PATH_ANSWER);
}

/* `measured` as measure_packet() says. A packet that it could not measure may fit:
 * the device knows. One that may be cut arrives in two outer packets, which an IPv6
 * underlay does not make (ip6_fragment(), net/ipv6/ip6_output.c).
 */
static __noinline int cut_or_answer(struct __sk_buff *ctx, const struct packet *packet,
				    const union ip_addr *vtep, __u32 measured)
{
	if (measured == IMMEASURABLE)
		return send_by_device(ctx, vtep, 0);
	if (is_ip4(packet) && !(packet->frag_off & bpf_htons(IP4_DONT_FRAGMENT)))
		return is_mapped_ip4(vtep) ? send_by_device(ctx, vtep, 0) : -DROP_TOO_BIG;
	return answer_too_big(ctx, packet, get_sender_mtu(packet, get_path_mtu(vtep)));
}
