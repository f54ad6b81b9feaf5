/* SPDX-License-Identifier: GPL-2.0-only */
/* Where a packet goes on this node: to a pod, or to the host's stack. */
#pragma once

#include <linux/if_packet.h>
#include <linux/pkt_cls.h>

#include "config.h"
#include "endpoints.h"
#include "parse.h"
#include "verdict.h"

/* A packet with this mark that leaves by a pod's host end has been through the
 * door: to_container lets it pass. Pods cannot set the mark, since the kernel
 * clears marks between namespaces, and for the same reason no pod sees it.
 */
#define DELIVERED_MARK 0x70796370

/* The door into a pod. Every IP packet for a pod of this node passes here, and
 * passes once, whichever program brings it and whichever way it takes after that.
 * What must happen to each packet for a pod belongs here, and nowhere else: a
 * policy's verdict, a Service's address put back, a flow's counter.
 */
static __always_inline int pass_door(struct __sk_buff *ctx, const struct endpoint *ep)
{
	return write_macs(ctx, ep->mac, config.gateway_mac);
}

/* Out of the pod's host end, for to_container, which takes it through the door. */
static __always_inline int send_to_host_end(const struct endpoint *ep)
{
	return leave_by(ep->ifindex, PATH_HOST_END);
}

/* A netkit runs from_container while the pod sends, before the packet comes in
 * anywhere. skb_scrub_packet() has just cleared skb_iif, which is never zero at
 * tc ingress.
 */
static __always_inline bool is_sent_on_netkit(struct __sk_buff *ctx)
{
	return config.netkit && !ctx->ingress_ifindex;
}

/* Through the pair whose host end is `ifindex`, as if the packet had come in on the
 * pod's own interface. It bypasses the host's stack.
 *
 * Only packets that came in can take bpf_redirect_peer() (skb_at_tc_ingress(),
 * net/core/filter.c); others leave by the host end. The helper does not run
 * eth_type_trans() again: a packet that came in as PACKET_OTHERHOST or
 * PACKET_BROADCAST would still be one in the pod, whose IP layer drops it.
 */
static __always_inline int enter_pair(struct __sk_buff *ctx, __u32 ifindex, enum packet_path path)
{
	if (is_sent_on_netkit(ctx)) {
		ctx->mark = DELIVERED_MARK;
		return leave_by(ifindex, path);
	}
	if (ctx->pkt_type != PACKET_HOST && bpf_skb_change_type(ctx, PACKET_HOST))
		return -DROP_REWRITE_FAILED;
	bpf_redirect_peer(ifindex, 0);
	return went(path, TC_ACT_REDIRECT);
}

/* To a pod of this node. bpf_redirect_peer() bypasses the qdisc of the host end:
 * a pod whose rate that qdisc limits gets its packets through it.
 */
static __always_inline int deliver_to_pod(struct __sk_buff *ctx, const struct endpoint *ep)
{
	int drop;

	if (ep->flags & ENDPOINT_SHAPED)
		return send_to_host_end(ep);
	drop = pass_door(ctx, ep);
	return drop ? drop : enter_pair(ctx, ep->ifindex, PATH_POD);
}

static __always_inline int enter_stack(void)
{
	bpf_redirect(config.stack_ifindex, BPF_F_INGRESS);
	return went(PATH_STACK, TC_ACT_REDIRECT);
}

/* To the host's stack, as if a pod's packet had come in on the stack's device,
 * whose routes cover all pods. So strict rp_filter, forwarding and nft rules see
 * one interface, and nothing is set per pod. The stack accepts only frames to
 * that device's MAC.
 */
static __always_inline int hand_to_stack(struct __sk_buff *ctx, const struct packet *packet)
{
	int drop = write_macs(ctx, config.gateway_mac, packet->src_mac);

	return drop ? drop : enter_stack();
}
