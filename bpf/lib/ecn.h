/* SPDX-License-Identifier: GPL-2.0-only */
/* Explicit congestion notification through a tunnel. RFC 6040 4.1 (normal mode):
 * the outer header begins with the inner one's mark; 4.2: how the two are merged
 * when the outer header is removed.
 */
#ifndef PYCNI_ECN_H
#define PYCNI_ECN_H

#include <linux/ip.h>
#include <linux/ipv6.h>

#include "ethernet.h"

#define ECN_MASK 3
#define ECN_NOT_ECT 0
#define ECN_ECT1 1
#define ECN_ECT0 2
#define ECN_CE 3

#define IP6_ECN_SHIFT 4 /* in the second byte of the header */

enum ecn_verdict {
	ECN_KEEP,
	ECN_CHANGE,
	ECN_REFUSE, /* congestion, but the sender does not know ECN */
};

static __always_inline __u8 read_ecn4(const struct iphdr *ip4)
{
	return ip4->tos & ECN_MASK;
}

static __always_inline __u8 read_ecn6(const struct ipv6hdr *ip6)
{
	return ip6->flow_lbl[0] >> IP6_ECN_SHIFT & ECN_MASK;
}

/* Figure 4 of RFC 6040. */
static __always_inline enum ecn_verdict merge_ecn(__u8 inner, __u8 outer)
{
	if (outer == ECN_CE && inner == ECN_NOT_ECT)
		return ECN_REFUSE;
	if (inner == outer || inner == ECN_NOT_ECT || inner == ECN_CE)
		return ECN_KEEP;
	return outer == ECN_CE || outer == ECN_ECT1 ? ECN_CHANGE : ECN_KEEP;
}

/* The helper corrects the header's checksum by the difference (RFC 1624). Then
 * the sum over the whole packet is the same as before, and a sum that a NIC left
 * in the skb stays right.
 */
static __always_inline int write_ecn4(struct __sk_buff *ctx, __u8 ecn)
{
	struct iphdr *ip4 = get_head(ctx, ETH_HLEN + sizeof(*ip4));
	__be16 before, after;
	__u8 tos;

	if (!ip4)
		return -DROP_REWRITE_FAILED;
	ip4 = (void *)ip4 + ETH_HLEN;
	before = bpf_htons(ip4->tos);
	tos = (ip4->tos & ~ECN_MASK) | ecn;
	after = bpf_htons(tos);
	if (bpf_l3_csum_replace(ctx, ETH_HLEN + offsetof(struct iphdr, check),
				before, after, sizeof(after)) ||
	    bpf_skb_store_bytes(ctx, ETH_HLEN + offsetof(struct iphdr, tos),
				&tos, sizeof(tos), 0))
		return -DROP_REWRITE_FAILED;
	return 0;
}

static __always_inline int write_ecn6(struct __sk_buff *ctx, __u8 ecn)
{
	struct ipv6hdr *ip6 = get_head(ctx, ETH_HLEN + sizeof(*ip6));
	__u8 byte;

	if (!ip6)
		return -DROP_REWRITE_FAILED;
	ip6 = (void *)ip6 + ETH_HLEN;
	byte = (ip6->flow_lbl[0] & ~(ECN_MASK << IP6_ECN_SHIFT)) |
	       ecn << IP6_ECN_SHIFT;
	if (bpf_skb_store_bytes(ctx,
				ETH_HLEN + offsetof(struct ipv6hdr, flow_lbl),
				&byte, sizeof(byte), BPF_F_RECOMPUTE_CSUM))
		return -DROP_REWRITE_FAILED;
	return 0;
}

#endif
