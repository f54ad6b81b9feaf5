/* SPDX-License-Identifier: GPL-2.0-only */
/* What other nodes send in IPIP. No device is behind these programs: what they cannot
 * take is dropped here, or by the guard in the host's stack. What this node sends,
 * see encap.h.
 */
#pragma once

#include <linux/if_packet.h>

#include "arrival.h"
#include "ecn.h"
#include "outer.h"
#include "upper.h"
#include "verdict.h"
#include "vteps.h"

/* What the outer header carries, and the bytes before that. The kernel's device
 * ip6tnl puts an option there unless it is told not to (RFC 2473 4.1).
 */
static __always_inline __u8 find_inner(struct __sk_buff *ctx, const struct packet *outer,
				       __u32 *headers)
{
	struct extension options;

	*headers = outer->l4_off - ETH_HLEN;
	if (outer->l4_proto != IPPROTO_DSTOPTS || is_ip4(outer) ||
	    bpf_skb_load_bytes(ctx, outer->l4_off, &options, sizeof(options)))
		return outer->l4_proto;
	*headers += measure_extension(IPPROTO_DSTOPTS, &options);
	return options.next;
}

/* No fragment, without options, and intact: no IP layer looks at it after this. */
static __always_inline int check_outer4(struct __sk_buff *ctx, const struct packet *outer)
{
	struct ethhdr *eth = get_head(ctx, ETH_HLEN + sizeof(struct iphdr));

	if (!eth)
		return -DROP_TRUNCATED;
	if (outer->l4_off != ETH_HLEN + sizeof(struct iphdr) || is_fragment4(outer))
		return -DROP_HIDDEN_HEADER;
	return checksum_ip4((void *)(eth + 1)) ? -DROP_BAD_HEADER : 0;
}

/* Without its outer header, in which `length` bytes were left for it. Before Linux
 * 6.3, skb->protocol may be that of the outer header: whoever receives the packet
 * behind a device finds out anew (eth_type_trans()).
 */
static __always_inline int receive_unwrapped(struct __sk_buff *ctx, const struct packet *outer,
					     int length)
{
	struct packet packet = {};
	struct route route = {};
	enum ecn_verdict ecn;
	int drop = parse_packet(ctx, &packet);

	if (drop)
		return drop;
	if ((int)packet.l3_length > length)
		return -DROP_TRUNCATED;
	ecn = merge_ecn(packet.ecn, outer->ecn);
	if (ecn == ECN_REFUSE)
		return -DROP_CONGESTED;
	if (ecn == ECN_CHANGE)
		drop = write_ecn(ctx, &packet, outer->ecn);
	if (!drop)
		drop = admit_packet(ctx, &packet, &outer->src, &route);
	if (drop)
		return drop;
	if (!route.ep)
		return hand_to_stack(ctx, &packet);
	return config.decap_l3 || packet.l3_proto == outer->l3_proto ?
		       deliver_to_pod(ctx, route.ep) :
		       send_to_host_end(route.ep);
}

/* IPIP to this node's VTEP. NOT_OURS for all other packets: nothing is changed. */
static __always_inline int receive_ipip(struct __sk_buff *ctx, const struct packet *outer)
{
	__u32 headers, end = end_packet(ctx, outer);
	__u8 proto = find_inner(ctx, outer, &headers);
	__be16 inner = bpf_htons(ETH_P_IP);
	int drop = 0;

	if (!is_ipip(proto) || outer->scope || ctx->pkt_type == PACKET_OTHERHOST)
		return NOT_OURS;
	if (!is_known_vtep(&outer->src))
		return -DROP_UNKNOWN_VTEP;
	if (is_ip4(outer))
		drop = check_outer4(ctx, outer);
	if (drop)
		return drop;
	if (proto == IPPROTO_IPV6)
		inner = bpf_htons(ETH_P_IPV6);
	if (pull_outer(ctx, headers, outer->l3_proto, inner))
		return -DROP_REWRITE_FAILED;
	return receive_unwrapped(ctx, outer, end - ETH_HLEN - headers);
}
