/* SPDX-License-Identifier: GPL-2.0-only */
/* How long a packet is between nodes. */
#pragma once

#include <linux/tcp.h>
#include <linux/udp.h>

#include "config.h"
#include "parse.h"

#define IMMEASURABLE 0xffffffff
#define TCP_DATA_OFFSET 12 /* the byte that holds it, RFC 9293 3.1 */

/* Bytes of a GSO packet's transport header; 0 if it is not known, as behind IPv6
 * extension headers.
 */
static __always_inline __u32 measure_l4_header(struct __sk_buff *ctx, const struct packet *packet)
{
	__u8 data_offset;

	if (packet->l4_proto == IPPROTO_UDP)
		return sizeof(struct udphdr);
	if (packet->l4_proto != IPPROTO_TCP ||
	    bpf_skb_load_bytes(ctx, packet->l4_off + TCP_DATA_OFFSET, &data_offset,
			       sizeof(data_offset)))
		return 0;
	return (data_offset >> 4) * 4;
}

/* Bytes of the IP packet on the wire; for a GSO packet, of its largest segment. A
 * packet that this cannot measure counts as larger than any other. Then it goes to
 * the stack, which can.
 */
static __always_inline __u32 measure_packet(struct __sk_buff *ctx, const struct packet *packet)
{
	__u32 l4_header;

	if (!ctx->gso_size)
		return packet->l3_length;
	l4_header = measure_l4_header(ctx, packet);
	if (!l4_header)
		return IMMEASURABLE;
	return packet->l4_off - ETH_HLEN + l4_header + ctx->gso_size;
}
