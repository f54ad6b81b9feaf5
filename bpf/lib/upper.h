/* SPDX-License-Identifier: GPL-2.0-only */
/* What an IP packet carries: the upper-layer header behind IPv6 extension headers
 * (RFC 8200 4). TCP and UDP right behind the IP header do not come here.
 */
#pragma once

#include "parse.h"
#include "verdict.h"

/* Packets have one or two; RFC 8200 4.1 knows an order of seven. */
#define EXTENSIONS_MAX 8
#define UPPER_MIN 4 /* bytes: an ICMP type, two ports */

/* The others of RFC 7045 4 are in <linux/in.h> and <linux/in6.h>. */
#define IPPROTO_HIP 139
#define IPPROTO_SHIM6 140

struct extension {
	__u8 next;
	__u8 length; /* in units of 8 bytes, without the first 8 */
	__be16 fragment; /* of a fragment header: the offset, and flags */
};

#define IP6_FRAGMENT_OFFSET 0xfff8

struct upper {
	__u32 off; /* bytes, from the Ethernet header on */
	__u8 proto;
	bool present; /* false in all fragments but the first */
	union { /* its first bytes, of what is_read(), else zero */
		__u8 type;
		__be16 ports[UPPER_MIN / 2];
	};
};

static __always_inline bool is_extension(__u8 proto)
{
	switch (proto) {
	case IPPROTO_HOPOPTS:
	case IPPROTO_ROUTING:
	case IPPROTO_FRAGMENT:
	case IPPROTO_AH:
	case IPPROTO_DSTOPTS:
	case IPPROTO_MH:
	case IPPROTO_HIP:
	case IPPROTO_SHIM6:
		return true;
	default:
		return false;
	}
}

/* The programs look at the first bytes of these. */
static __always_inline bool is_read(__u8 proto)
{
	return proto == IPPROTO_ICMP || proto == IPPROTO_UDP || proto == IPPROTO_ICMPV6;
}

static __always_inline __u32 measure_extension(__u8 proto, const struct extension *head)
{
	if (proto == IPPROTO_FRAGMENT)
		return 8;
	if (proto == IPPROTO_AH) /* RFC 4302 2.2 */
		return (head->length + 2) * 4;
	return (head->length + 1) * 8;
}

/* Where the packet ends. A GSO packet above 64 KiB ("BIG TCP") has no length. */
static __always_inline __u32 end_packet(struct __sk_buff *ctx, const struct packet *packet)
{
	if (ctx->gso_size && packet->l3_length == sizeof(struct ipv6hdr))
		return ctx->len;
	return packet->l3_off + packet->l3_length;
}

/* A packet whose header cannot be found is dropped, since a receiver might find it:
 * behind more headers than are read here, or in the next fragment (RFC 7112).
 * Fragments behind the first have none.
 */
static __noinline int find_upper(struct __sk_buff *ctx, const struct packet *packet,
				 struct upper *upper)
{
	__u32 end = end_packet(ctx, packet);
	struct extension head;
	__u8 proto = packet->l4_proto;
	__u32 off = packet->l4_off;

	upper->present = !is_later_fragment4(packet);
	if (!is_ip4(packet)) {
		for (int i = 0; i < EXTENSIONS_MAX; i++) {
			if (!is_extension(proto) || !upper->present)
				break;
			if (off + 8 > end || bpf_skb_load_bytes(ctx, off, &head, sizeof(head)))
				return -DROP_HIDDEN_HEADER;
			if (proto == IPPROTO_FRAGMENT &&
			    head.fragment & bpf_htons(IP6_FRAGMENT_OFFSET))
				upper->present = false;
			off += measure_extension(proto, &head);
			proto = head.next;
		}
		if (is_extension(proto) && upper->present)
			return -DROP_HIDDEN_HEADER;
	}
	upper->off = off;
	upper->proto = proto;
	if (upper->present && is_read(proto) &&
	    (off + UPPER_MIN > end ||
	     bpf_skb_load_bytes(ctx, off, upper->ports, sizeof(upper->ports))))
		return -DROP_HIDDEN_HEADER;
	return 0;
}
