/* SPDX-License-Identifier: GPL-2.0-only */
/* Explicit congestion notification through a tunnel. RFC 6040 4.1 (normal mode):
 * the outer header begins with the inner one's mark; 4.2: how the two are merged
 * when the outer header is removed.
 */
#pragma once

#include <linux/ip.h>
#include <linux/ipv6.h>

#include "parse.h"

#define ECN_NOT_ECT 0
#define ECN_ECT1 1
#define ECN_ECT0 2
#define ECN_CE 3

#define ECN_BYTE 1 /* of the IP header, in both families */

enum ecn_verdict {
	ECN_KEEP,
	ECN_CHANGE,
	ECN_REFUSE, /* congestion, but the sender does not know ECN */
};

/* Figure 4 of RFC 6040. */
static __always_inline enum ecn_verdict merge_ecn(__u8 inner, __u8 outer)
{
	if (outer == ECN_CE && inner == ECN_NOT_ECT)
		return ECN_REFUSE;
	if (inner == outer || inner == ECN_NOT_ECT || inner == ECN_CE)
		return ECN_KEEP;
	return outer == ECN_CE || outer == ECN_ECT1 ? ECN_CHANGE : ECN_KEEP;
}

/* The helper corrects IPv4's checksum by the difference (RFC 1624). Then the sum over
 * the whole packet is the same as before, and a sum that a NIC left in the skb stays
 * right. IPv6 has no such checksum.
 */
static __always_inline int write_ecn(struct __sk_buff *ctx, const struct packet *packet, __u8 ecn)
{
	bool ip4 = is_ip4(packet);
	__u32 shift = ip4 ? 0 : IP6_ECN_SHIFT;
	__u8 before, after;

	if (bpf_skb_load_bytes(ctx, ETH_HLEN + ECN_BYTE, &before, sizeof(before)))
		return -DROP_REWRITE_FAILED;
	after = (before & ~(ECN_MASK << shift)) | ecn << shift;
	if (ip4 && bpf_l3_csum_replace(ctx, ETH_HLEN + offsetof(struct iphdr, check),
				       bpf_htons(before), bpf_htons(after), sizeof(__be16)))
		return -DROP_REWRITE_FAILED;
	return bpf_skb_store_bytes(ctx, ETH_HLEN + ECN_BYTE, &after, sizeof(after),
				   ip4 ? 0 : BPF_F_RECOMPUTE_CSUM) ?
		       -DROP_REWRITE_FAILED :
		       0;
}
