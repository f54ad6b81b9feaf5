/* SPDX-License-Identifier: GPL-2.0-only */
/* Where a packet goes on this node: to a pod, or to the host's own stack. */
#ifndef PYCNI_DELIVER_H
#define PYCNI_DELIVER_H

#include <linux/if_packet.h>

#include "config.h"
#include "endpoints.h"
#include "parse.h"

/* What goes out of a pod's host end with this mark has its MACs and its answer
 * already: to_container lets it through. Pods cannot set marks, for the devices
 * between namespaces clear them, and so none enters a pod.
 */
#define DELIVERED_MARK 0x70796370

/* A netkit runs from_container while the pod sends, before the packet comes in
 * anywhere. There the kernel's skb_scrub_packet() has just cleared skb_iif, which
 * is never zero at tc ingress.
 */
static __always_inline bool is_sent_on_netkit(struct __sk_buff *ctx)
{
	return config.netkit && !ctx->ingress_ifindex;
}

/* To the pod behind the host end `ifindex`, past the host's stack: the packet
 * goes on as if it had come in on the pod's own interface.
 *
 * bpf_redirect_peer() does not run eth_type_trans() again: a packet that was
 * PACKET_OTHERHOST or PACKET_BROADCAST where it came in still is in the pod,
 * whose IP layer drops it. Only packets that came in can take it
 * (skb_at_tc_ingress(), net/core/filter.c); others leave by the host end.
 */
static __always_inline int redirect_into_pod(struct __sk_buff *ctx,
					     __u32 ifindex)
{
	if (is_sent_on_netkit(ctx)) {
		ctx->mark = DELIVERED_MARK;
		return bpf_redirect(ifindex, 0);
	}
	if (ctx->pkt_type != PACKET_HOST &&
	    bpf_skb_change_type(ctx, PACKET_HOST))
		return -DROP_REWRITE_FAILED;
	return bpf_redirect_peer(ifindex, 0);
}

/* bpf_redirect_peer() passes by the qdisc of the host veth: a pod whose rate
 * that qdisc limits is reached through it, and through to_container.
 */
static __always_inline int deliver_local(struct __sk_buff *ctx,
					 const struct endpoint *ep)
{
	int drop = write_macs(ctx, ep->mac, config.gateway_mac);

	if (drop)
		return drop;
	if (ep->flags & ENDPOINT_SHAPED)
		return bpf_redirect(ep->ifindex, 0);
	return redirect_into_pod(ctx, ep->ifindex);
}

/* To the host's stack, as if a pod's packet had come in on the overlay device.
 * Its routes cover all pods, so that strict rp_filter, forwarding and nft rules
 * see one interface and nothing is set per pod. The stack takes only what is
 * addressed to that device, hence the MAC.
 */
static __always_inline int hand_to_stack(struct __sk_buff *ctx,
					 const struct packet *packet)
{
	int drop = write_macs(ctx, config.gateway_mac, packet->src_mac);

	if (drop)
		return drop;
	return bpf_redirect(config.overlay_ifindex, BPF_F_INGRESS);
}

#endif
