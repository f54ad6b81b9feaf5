/* SPDX-License-Identifier: GPL-2.0-only */
/* VXLAN behind the outer IP header, RFC 7348 5. */
#pragma once

#include <linux/udp.h>

#include "config.h"
#include "parse.h"

#define VXLAN_VNI_VALID 0x08000000 /* the I flag */
#define VXLAN_VNI_SHIFT 8

struct vxlan_packet {
	struct udphdr udp;
	__be32 flags;
	__be32 vni; /* in the upper 24 bits */
};

static __always_inline bool is_udp_to(struct __sk_buff *ctx, const struct packet *packet,
				      __be16 port)
{
	__be16 dst_port;

	if (packet->l4_proto != IPPROTO_UDP || is_later_fragment4(packet) ||
	    bpf_skb_load_bytes(ctx, packet->l4_off + offsetof(struct udphdr, dest), &dst_port,
			       sizeof(dst_port)))
		return false;
	return dst_port == port;
}

/* Whether this is VXLAN of our overlay. A receiver ignores reserved bits. */
static __always_inline int check_vxlan(struct __sk_buff *ctx, const struct packet *packet)
{
	struct vxlan_packet vxlan;

	if (bpf_skb_load_bytes(ctx, packet->l4_off, &vxlan, sizeof(vxlan)))
		return -DROP_TRUNCATED;
	if (!(vxlan.flags & bpf_htonl(VXLAN_VNI_VALID)))
		return -DROP_BAD_HEADER;
	return bpf_ntohl(vxlan.vni) >> VXLAN_VNI_SHIFT != config.vni ? -DROP_WRONG_VNI : 0;
}
