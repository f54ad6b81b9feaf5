/* SPDX-License-Identifier: GPL-2.0-only */
/* Packets to another node's own address that are too big for the path. What is too
 * big for another node's pods goes to the host's stack, which cuts it or answers
 * with an ICMP error. These it would route out of the uplink, so the program does
 * both itself.
 */
#ifndef PYCNI_TOO_BIG_H
#define PYCNI_TOO_BIG_H

#include "deliver.h"
#include "encap.h"
#include "mtu.h"
#include "path_mtus.h"

/* Bytes of the packet in the error: its headers and ports, whatever options it
 * has. A multiple of 4, for bpf_csum_diff().
 */
#define QUOTE 128
#define FRAGMENT_WORD 6 /* the byte where flags and offset begin, RFC 791 3.1 */
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

struct icmp4_packet {
	struct iphdr ip4;
	struct icmp_error icmp;
};

struct icmp6_packet {
	struct ipv6hdr ip6;
	struct icmp_error icmp;
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
	if (!eth)
		return NULL;
	__builtin_memset(eth + 1, 0, headers);
	return eth + 1;
}

static __always_inline __u16 fold_checksum(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

static __always_inline int write_error4(struct __sk_buff *ctx,
					const struct packet *packet, __u32 mtu)
{
	const __u32 length = sizeof(struct icmp4_packet);
	struct icmp4_packet *error;

	error = make_room(ctx, length - QUOTE);
	if (!error)
		return -DROP_REWRITE_FAILED;
	*(__u8 *)&error->ip4 = IP4_VERSION_IHL;
	error->ip4.tos = INTERNETWORK_CONTROL;
	error->ip4.tot_len = bpf_htons(length);
	error->ip4.ttl = UNDERLAY_TTL;
	error->ip4.protocol = IPPROTO_ICMP;
	error->ip4.saddr = config.gateway4.words[3];
	error->ip4.daddr = packet->src.words[3];
	error->ip4.check = checksum_ip4(&error->ip4);
	error->icmp.type = UNREACHABLE;
	error->icmp.code = FRAGMENTATION_NEEDED;
	error->icmp.mtu = bpf_htonl(mtu);
	error->icmp.checksum = fold_checksum(bpf_csum_diff(
		NULL, 0, (void *)&error->icmp, sizeof(error->icmp), 0));
	return 0;
}

/* The checksum is as that of neighbour discovery (neighbour.h). */
static __always_inline int write_error6(struct __sk_buff *ctx,
					const struct packet *packet, __u32 mtu)
{
	const __u32 length = sizeof(struct icmp_error);
	struct icmp6_packet *error;

	error = make_room(ctx, sizeof(*error) - QUOTE);
	if (!error)
		return -DROP_REWRITE_FAILED;
	*(__be32 *)&error->ip6 = bpf_htonl(IP6_VERSION);
	error->ip6.payload_len = bpf_htons(length);
	error->ip6.nexthdr = IPPROTO_ICMPV6;
	error->ip6.hop_limit = UNDERLAY_TTL;
	for (int i = 0; i < 4; i++) {
		error->ip6.saddr.in6_u.u6_addr32[i] = config.gateway6.words[i];
		error->ip6.daddr.in6_u.u6_addr32[i] = packet->src.words[i];
	}
	error->icmp.type = PACKET_TOO_BIG;
	error->icmp.mtu = bpf_htonl(mtu);
	error->icmp.checksum = fold_checksum(
		bpf_csum_diff(NULL, 0, (void *)&error->ip6.saddr,
			      length + 2 * sizeof(error->ip6.saddr),
			      bpf_htonl(length) + bpf_htonl(IPPROTO_ICMPV6)));
	return 0;
}

static __always_inline int
answer_too_big(struct __sk_buff *ctx, const struct packet *packet, __u32 mtu)
{
	int drop;

	if (packet->l3_length < QUOTE)
		return -DROP_TOO_BIG;
	if (packet->l3_proto == bpf_htons(ETH_P_IP))
		drop = write_error4(ctx, packet, mtu);
	else
		drop = write_error6(ctx, packet, mtu);
	if (!drop)
		drop = write_macs(ctx, packet->src_mac, config.gateway_mac);
	return drop ? drop : enter_pair(ctx, ctx->ifindex, PATH_ANSWER);
}

static __always_inline bool may_be_cut(struct __sk_buff *ctx,
				       const struct packet *packet)
{
	__be16 word;

	return packet->l3_proto == bpf_htons(ETH_P_IP) &&
	       !bpf_skb_load_bytes(ctx, ETH_HLEN + FRAGMENT_WORD, &word,
				   sizeof(word)) &&
	       !(word & bpf_htons(IP4_DONT_FRAGMENT));
}

/* `measured` as measure_packet() says. A packet that it could not measure may fit:
 * the device knows. One that may be cut arrives in two outer packets, which an IPv6
 * underlay does not make (ip6_fragment(), net/ipv6/ip6_output.c).
 */
static __noinline int cut_or_answer(struct __sk_buff *ctx,
				    const struct packet *packet,
				    const union ip_addr *vtep, __u32 measured)
{
	if (measured == IMMEASURABLE)
		return send_by_device(ctx, vtep, 0);
	if (may_be_cut(ctx, packet))
		return is_mapped_ip4(vtep) ? send_by_device(ctx, vtep, 0) :
					     -DROP_TOO_BIG;
	return answer_too_big(ctx, packet,
			      get_sender_mtu(packet, get_path_mtu(vtep)));
}

#endif
