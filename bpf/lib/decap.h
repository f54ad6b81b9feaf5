/* SPDX-License-Identifier: GPL-2.0-only */
/* From the wire into a pod: a program of ours removes the headers of VXLAN. It takes
 * only packets that are plain in every respect. All others are NOT_OURS: they go
 * on unchanged to the kernel's VXLAN device and to from_overlay behind it, which
 * decide and count.
 */
#pragma once

#include <linux/if_packet.h>

#include "classify.h"
#include "deliver.h"
#include "direct.h"
#include "ecn.h"
#include "messages.h"
#include "outer.h"
#include "remotes.h"
#include "undo.h"
#include "verdict.h"

/* Packets with a UDP checksum go to the kernel, which verifies it. So do those
 * with reserved bits set, which the kernel accepts or refuses.
 */
static __always_inline bool is_plain_vxlan(const struct vxlan_packet *vxlan, __u32 length)
{
	return vxlan->udp.dest == config.vxlan_port && !vxlan->udp.check &&
	       bpf_ntohs(vxlan->udp.len) == length && vxlan->flags == bpf_htonl(VXLAN_VNI_VALID) &&
	       vxlan->vni == bpf_htonl(config.vni << VXLAN_VNI_SHIFT);
}

/* Bytes before the inner Ethernet header, or 0: only of VXLAN without options, no
 * fragment, intact, and with nothing behind it.
 */
static __always_inline __u32 find_plain_inner(struct __sk_buff *ctx, const struct packet *outer)
{
	bool ip4 = is_ip4(outer);
	__u32 l4_off = ETH_HLEN + measure_ip_header(ip4);
	void *head;

	if (outer->l4_proto != IPPROTO_UDP || outer->l4_off != l4_off || is_fragment4(outer) ||
	    ctx->pkt_type != PACKET_HOST || ETH_HLEN + outer->l3_length != ctx->len)
		return 0;
	head = pull_head(ctx, l4_off + VXLAN_ROOM);
	if (!head || (ip4 && checksum_ip4(head + ETH_HLEN)) ||
	    !is_plain_vxlan(head + l4_off, ctx->len - l4_off))
		return 0;
	return l4_off + sizeof(struct vxlan_packet);
}

/* GRO leaves marks of the tunnel in a merged packet, and no helper removes them.
 * Such a packet may enter a pod only if nothing cuts it into segments again by
 * those marks. A TCP socket does not. A UDP socket does, and so does the device
 * by which a pod forwards the packet.
 */
static __always_inline bool may_skip_kernel(struct __sk_buff *ctx, const struct packet *packet,
					    const struct endpoint *ep)
{
	if (ep->flags & ENDPOINT_SHAPED)
		return false;
	if (!ctx->gso_size)
		return true;
	return packet->l4_proto == IPPROTO_TCP && !(ep->flags & ENDPOINT_FORWARDS);
}

/* Of a packet to this node's VTEP: delivered to a pod, dropped, or NOT_OURS.
 *
 * Every VTEP in `remotes` is in `vteps`, so is_behind() checks the outer source,
 * too. What a node sends from its own address goes to from_overlay.
 */
static __always_inline int decap_ourselves(struct __sk_buff *ctx, const struct packet *outer)
{
	__u32 headers = find_plain_inner(ctx, outer);
	struct packet packet = {};
	struct route route = {};
	enum ecn_verdict ecn;
	int verdict;

	if (!headers || parse_packet_at(ctx, &packet, headers) || packet.scope ||
	    check_messages(ctx, &packet))
		return NOT_OURS;
	if (packet.l3_proto != outer->l3_proto && !config.decap_l3)
		return NOT_OURS;
	ecn = merge_ecn(packet.ecn, outer->ecn);
	if (ecn == ECN_REFUSE)
		return NOT_OURS;
	if (!is_behind(&outer->src, &packet.src))
		return NOT_OURS;
	if (config.direct && !may_be_from(ctx, outer->src_mac, &outer->src))
		return NOT_OURS;
	if (classify_here(&packet.dst, &route) != LOCAL_POD ||
	    !may_skip_kernel(ctx, &packet, route.ep))
		return NOT_OURS;

	verdict = pull_outer(ctx, headers, outer->l3_proto, packet.l3_proto);
	if (verdict)
		return verdict;
	bpf_csum_level(ctx, BPF_CSUM_LEVEL_DEC); /* there was UDP around it */
	if (ecn == ECN_CHANGE)
		verdict = write_ecn(ctx, &packet, outer->ecn);
	if (!verdict && config.services) {
		packet.l4_off -= headers;
		verdict = undo_translation(ctx, &packet);
	}
	return verdict ? verdict : deliver_to_pod(ctx, route.ep);
}
