/* SPDX-License-Identifier: GPL-2.0-only */
/* Between nodes on one link, packets need no outer headers: the MACs say from which
 * node to which. A node takes such a packet only from the neighbour that is the node
 * of its source, by the interface on which it has that neighbour. Where routers know
 * where pods are (`config.routed`), the neighbour may also be the router to that node.
 *
 * Who is whose neighbour, `nexthops` says as long as the agent does. Beyond that the
 * kernel is asked, packet by packet: so a node without an agent sends and receives.
 */
#ifndef PYCNI_DIRECT_H
#define PYCNI_DIRECT_H

#include <linux/if_packet.h>

#include "arrival.h"
#include "ethernet.h"
#include "nexthops.h"
#include "verdict.h"

#define AF_INET 2 /* no header for BPF has them */
#define AF_INET6 10

/* Only what a receiver knows by its addresses alone: its other packets are not all
 * looked up. A pod has an address outside of the cluster's only if it asked for it.
 */
static __always_inline bool is_of_overlay(const struct packet *packet)
{
	return is_in_cluster(&packet->src) || is_in_cluster(&packet->dst);
}

/* The kernel's route to `vtep` as bpf_fib_lookup() tells it; 0 and
 * BPF_FIB_LKUP_RET_NO_NEIGH say that there is one. `fib` is zero but for `ifindex`:
 * with BPF_FIB_LOOKUP_OUTPUT the interface by which packets shall leave, else any
 * that forwards.
 */
static __always_inline long ask_kernel(struct __sk_buff *ctx,
				       const union ip_addr *vtep,
				       struct bpf_fib_lookup *fib, __u32 flags)
{
	struct self *own = get_self();

	if (!own)
		return -1;
	if (is_mapped_ip4(vtep)) {
		fib->family = AF_INET;
		fib->ipv4_src = own->vtep.words[3];
		fib->ipv4_dst = vtep->words[3];
	} else {
		fib->family = AF_INET6;
		for (int i = 0; i < 4; i++) {
			fib->ipv6_src[i] = own->vtep.words[i];
			fib->ipv6_dst[i] = vtep->words[i];
		}
	}
	return bpf_fib_lookup(ctx, fib, sizeof(*fib), flags);
}

/* Whether the route that was told leads to `vtep` by no gateway, whose address would
 * be in the place of the destination.
 */
static __always_inline bool is_on_link(const struct bpf_fib_lookup *fib,
				       const union ip_addr *vtep)
{
	if (is_mapped_ip4(vtep))
		return fib->family == AF_INET &&
		       fib->ipv4_dst == vtep->words[3];
	for (int i = 0; i < 4; i++)
		if (fib->ipv6_dst[i] != vtep->words[i])
			return false;
	return fib->family == AF_INET6;
}

/* By the kernel's own neighbour table: nobody vouches for ours, or the kernel has
 * forgotten the neighbour, and asks for it. NOT_OURS if the node was on the link and
 * is no more; and for IPv6 if the kernel has to ask for an IPv4 neighbour, which it takes for an IPv6
 * one (bpf_out_neigh_v6(), net/core/filter.c): the VXLAN device has it asked for.
 */
static __noinline int send_by_kernels_table(struct __sk_buff *ctx,
					    const struct packet *packet,
					    const struct nexthop *nexthop,
					    const union ip_addr *vtep)
{
	struct bpf_fib_lookup fib = { .ifindex = config.stack_ifindex };
	struct bpf_redir_neigh neighbour = {};
	__u32 ifindex = nexthop->ifindex;
	long result = ask_kernel(ctx, vtep, &fib, 0);

	if (result && result != BPF_FIB_LKUP_RET_NO_NEIGH)
		return NOT_OURS;
	if (nexthop->flags & NEXTHOP_ON_LINK && !is_on_link(&fib, vtep))
		return NOT_OURS;
	if (!result) {
		if (write_macs(ctx, fib.dmac, fib.smac))
			return -DROP_REWRITE_FAILED;
		bpf_redirect(fib.ifindex, 0);
		return went(PATH_DIRECT, TC_ACT_REDIRECT);
	}
	if (packet->l3_proto == bpf_htons(ETH_P_IPV6) && fib.family == AF_INET)
		return NOT_OURS;
	/* Linux tells it without a neighbour, too, from 5.12 on. */
	if (fib.ifindex != config.stack_ifindex)
		ifindex = fib.ifindex;
	neighbour.nh_family = fib.family;
	for (int i = 0; i < 4; i++)
		neighbour.ipv6_nh[i] = fib.ipv6_dst[i];
	bpf_redirect_neigh(ifindex, &neighbour, sizeof(neighbour), 0);
	return went(PATH_DIRECT, TC_ACT_REDIRECT);
}

/* Routers know pod CIDRs and VTEPs: not an address that a pod has asked for, and not
 * all that a node has. Neighbours know each other by the MAC.
 */
static __always_inline bool is_known_to_routers(const struct packet *packet,
						const union ip_addr *vtep)
{
	return is_of_this_node(&packet->src) &&
	       (same_address(&packet->dst, vtep) ||
		lookup_remote_node(&packet->dst));
}

/* `measured` as measure_packet() says. NOT_OURS, and nothing is changed, if the
 * packet is longer than the way allows, or needs outer headers to be known.
 */
static __always_inline int send_directly(struct __sk_buff *ctx,
					 const struct packet *packet,
					 struct nexthop *nexthop,
					 const union ip_addr *vtep,
					 __u32 measured, bool fresh)
{
	struct ethhdr *eth;

	if (!is_of_overlay(packet) || measured > nexthop->mtu ||
	    (!ctx->gso_size && ctx->len - ETH_HLEN > nexthop->mtu))
		return NOT_OURS;
	if (!(nexthop->flags & NEXTHOP_ON_LINK) &&
	    !is_known_to_routers(packet, vtep))
		return NOT_OURS;
	if (!nexthop->used) /* as in encap.h */
		nexthop->used = 1;
	if (!fresh || nexthop->flags & NEXTHOP_UNRESOLVED)
		return send_by_kernels_table(ctx, packet, nexthop, vtep);
	eth = pull_head(ctx, sizeof(*eth));
	if (!eth)
		return -DROP_REWRITE_FAILED;
	copy_macs(eth, nexthop->dst_mac);
	bpf_redirect(nexthop->ifindex, 0);
	return went(PATH_DIRECT, TC_ACT_REDIRECT);
}

/* The node may have moved since the agent wrote its next hop, or the agent has not
 * heard of it yet.
 */
static __noinline bool is_kernels_neighbour(struct __sk_buff *ctx,
					    const __u8 *mac,
					    const union ip_addr *vtep)
{
	struct bpf_fib_lookup fib = { .ifindex = ctx->ifindex };

	return !ask_kernel(ctx, vtep, &fib, BPF_FIB_LOOKUP_OUTPUT) &&
	       fib.ifindex == ctx->ifindex &&
	       (config.routed || is_on_link(&fib, vtep)) &&
	       same_mac(fib.dmac, mac);
}

/* Whether the node at `vtep` itself, whose next hop is given or NULL, sent a packet
 * from `mac` by this link. No station has the MAC that is all zeros, which an
 * unresolved next hop has.
 */
static __always_inline bool came_from(struct __sk_buff *ctx, const __u8 *mac,
				      const struct nexthop *nexthop,
				      const union ip_addr *vtep)
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
	       nexthop->flags & NEXTHOP_UNRESOLVED ||
	       came_from(ctx, mac, nexthop, vtep);
}

/* The VTEP of the node that an address belongs to, or NULL. */
static __always_inline const union ip_addr *
find_owner(const union ip_addr *addr)
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
static __always_inline int receive_directly(struct __sk_buff *ctx,
					    const struct packet *packet)
{
	const union ip_addr *vtep;
	struct route route = {};
	int drop;

	if (packet->scope || ctx->pkt_type == PACKET_OTHERHOST ||
	    !is_of_overlay(packet))
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
	return route.ep ? deliver_to_pod(ctx, route.ep) :
			  hand_to_stack(ctx, packet);
}

#endif
