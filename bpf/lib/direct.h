/* SPDX-License-Identifier: GPL-2.0-only */
/* Between nodes on one link, packets need no outer headers: the MACs say from which
 * node to which. A node takes such a packet only from the neighbour that is the node
 * of its source, by the interface on which it has that neighbour. Where routers know
 * where pods are (`config.routed`), the neighbour may also be the router to that node.
 *
 * Who is whose neighbour, `nexthops` says as long as the agent does. Beyond that the
 * kernel is asked, packet by packet: so a node without an agent sends and receives.
 */
#pragma once

#include <linux/if_packet.h>

#include "arrival.h"
#include "fib.h"
#include "nexthops.h"
#include "verdict.h"

/* Only what a receiver knows by its addresses alone: its other packets are not all
 * looked up. A pod has an address outside of the cluster's only if it asked for it.
 */
static __always_inline bool is_of_overlay(const struct packet *packet)
{
	return is_in_cluster(&packet->src) || is_in_cluster(&packet->dst);
}

/* Routers know pod CIDRs and VTEPs: not an address that a pod has asked for, and not
 * all that a node has. Neighbours know each other by the MAC.
 */
static __always_inline bool is_known_to_routers(const struct packet *packet,
						const union ip_addr *vtep)
{
	return is_of_this_node(&packet->src) &&
	       (same_address(&packet->dst, vtep) || lookup_remote_node(&packet->dst));
}

/* Whether a packet needs no outer headers to be known by its receiver. */
static __always_inline bool may_go_directly(const struct packet *packet,
					    const struct nexthop *nexthop,
					    const union ip_addr *vtep)
{
	return is_of_overlay(packet) &&
	       (nexthop->flags & NEXTHOP_ON_LINK || is_known_to_routers(packet, vtep));
}

/* The node may have moved since the agent wrote its next hop, or the agent has not
 * heard of it yet.
 */
static __noinline bool is_kernels_neighbour(struct __sk_buff *ctx, const __u8 *mac,
					    const union ip_addr *vtep)
{
	struct bpf_fib_lookup fib = { .ifindex = ctx->ifindex };

	return !ask_kernel(ctx, vtep, &fib, BPF_FIB_LOOKUP_OUTPUT) && fib.ifindex == ctx->ifindex &&
	       (config.routed || is_on_link(&fib, vtep)) && same_mac(fib.dmac, mac);
}

/* Whether the node at `vtep` itself, whose next hop is given or NULL, sent a packet
 * from `mac` by this link. No station has the MAC that is all zeros, which an
 * unresolved next hop has.
 */
static __always_inline bool came_from(struct __sk_buff *ctx, const __u8 *mac,
				      const struct nexthop *nexthop, const union ip_addr *vtep)
{
	const __u8 none[ETH_ALEN] = {};

	if (same_mac(mac, none))
		return false;
	if (nexthop && (config.routed || nexthop->flags & NEXTHOP_ON_LINK) &&
	    nexthop->ifindex == ctx->ifindex && same_mac(nexthop->dst_mac, mac))
		return true;
	return is_kernels_neighbour(ctx, mac, vtep);
}

/* Whether VXLAN with the outer source `vtep` may be that node's. A node that gets
 * packets without outer headers is known by its MAC in VXLAN, too: else a stranger
 * on the link would take that way in. While nobody knows its MAC, the outer source
 * has to do.
 */
static __always_inline bool may_be_from(struct __sk_buff *ctx, const __u8 *mac,
					const union ip_addr *vtep)
{
	struct nexthop *nexthop = lookup_nexthop(vtep);

	return !nexthop || !(nexthop->flags & NEXTHOP_DIRECT) ||
	       nexthop->flags & NEXTHOP_UNRESOLVED || came_from(ctx, mac, nexthop, vtep);
}

/* The VTEP of the node that an address belongs to, or NULL. */
static __always_inline const union ip_addr *find_owner(const union ip_addr *addr)
{
	struct remote *remote = lookup_remote(addr);
	struct node *node;

	if (remote)
		return &remote->vtep;
	node = lookup_node(addr);
	return node ? &node->vtep : NULL;
}

/* A packet without outer headers, from another node to a pod or to this node. What
 * is of no node and goes to a pod is the world's: the stack decides.
 */
static __always_inline int receive_directly(struct __sk_buff *ctx, struct packet *packet)
{
	const union ip_addr *vtep;
	struct route route = {};
	int drop;

	if (packet->scope || ctx->pkt_type == PACKET_OTHERHOST || !is_of_overlay(packet))
		return NOT_OURS;
	vtep = find_owner(&packet->src);
	if (!vtep && !is_in_cluster(&packet->src))
		return NOT_OURS;
	if (!vtep || is_own_vtep(vtep))
		return -DROP_SPOOFED_INNER;
	if (!came_from(ctx, packet->src_mac, lookup_nexthop(vtep), vtep))
		return -DROP_WRONG_NEIGHBOUR;
	drop = find_receiver(ctx, packet, &route);
	if (drop)
		return drop;
	return route.ep ? deliver_to_pod(ctx, route.ep) : hand_to_stack(ctx, packet);
}
