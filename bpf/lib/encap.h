/* SPDX-License-Identifier: GPL-2.0-only */
/* To another node: without outer headers or in IPIP if it takes such packets; else in
 * VXLAN, with outer headers of our own if a fresh next hop is known, or through the
 * VXLAN device, for which the kernel finds one. These two make the same bytes on the
 * wire.
 */
#pragma once

#include "direct.h"
#include "fib.h"
#include "mtu.h"
#include "nexthops.h"
#include "outer.h"
#include "path_mtus.h"
#include "tunnel.h"
#include "verdict.h"

static __noinline int prepare_for_device(struct __sk_buff *ctx, const union ip_addr *vtep,
					 __u64 tunnel_flags)
{
	int drop = write_macs(ctx, config.gateway_mac, config.overlay_mac);

	return drop ? drop : write_tunnel(ctx, vtep, tunnel_flags);
}

static __always_inline int send_by_device(struct __sk_buff *ctx, const union ip_addr *vtep,
					  __u64 tunnel_flags)
{
	int drop = prepare_for_device(ctx, vtep, tunnel_flags);

	return drop ? drop : leave_by(config.vxlan_ifindex, PATH_DEVICE);
}

enum exit {
	ANY_EXIT, /* whichever is fastest */
	THIS_DEVICE, /* on its way out of the VXLAN device: VXLAN leaves there */
};

/* What shall stand before a packet to the node behind `nexthop`, as outer.h says. */
static __always_inline __u32 choose_protocol(const struct packet *packet,
					     const struct nexthop *nexthop)
{
	if (config.direct && nexthop->flags & NEXTHOP_DIRECT)
		return NO_OUTER;
	if (config.ipip && nexthop->flags & NEXTHOP_IPIP)
		return is_ip4(packet) ? IPPROTO_IPIP : IPPROTO_IPV6;
	return IPPROTO_UDP;
}

static __always_inline enum packet_path name_path(__u32 protocol)
{
	return protocol == NO_OUTER ? PATH_DIRECT : PATH_NODE;
}

/* By the kernel's own tables: nobody vouches for our next hops, or the kernel has
 * forgotten the neighbour's MAC, and asks for it. NOT_OURS as push_outer() says, and if
 * the kernel names no way. In direct mode, too, if the node was on the link and is no
 * more; and for IPv6 if the kernel has to ask for an IPv4 neighbour, which it takes
 * for an IPv6 one (bpf_out_neigh_v6(), net/core/filter.c): the VXLAN device has it
 * asked for.
 */
static __noinline int send_by_kernels_table(struct __sk_buff *ctx, const struct packet *packet,
					    __u32 protocol, const struct nexthop *nexthop,
					    const union ip_addr *vtep)
{
	struct bpf_fib_lookup fib = { .ifindex = config.stack_ifindex };
	struct bpf_redir_neigh neighbour = {};
	__u32 ifindex = nexthop->ifindex;
	struct self *own = get_self();
	long result = ask_kernel(ctx, vtep, &fib, 0);
	int verdict;

	if (!own || (result && result != BPF_FIB_LKUP_RET_NO_NEIGH))
		return NOT_OURS;
	if (protocol == NO_OUTER) {
		if (nexthop->flags & NEXTHOP_ON_LINK && !is_on_link(&fib, vtep))
			return NOT_OURS;
		if (result && fib.family == AF_INET && !is_ip4(packet))
			return NOT_OURS;
	}
	verdict = push_outer(ctx, packet, protocol, own, vtep, NULL);
	if (verdict)
		return verdict;
	if (!result) {
		if (write_macs(ctx, fib.dmac, fib.smac))
			return -DROP_REWRITE_FAILED;
		return leave_by(fib.ifindex, name_path(protocol));
	}
	/* Linux tells it without a neighbour, too, from 5.12 on. */
	if (fib.ifindex != config.stack_ifindex)
		ifindex = fib.ifindex;
	neighbour.nh_family = fib.family;
	for (int i = 0; i < 4; i++)
		neighbour.ipv6_nh[i] = fib.ipv6_dst[i];
	bpf_redirect_neigh(ifindex, &neighbour, sizeof(neighbour), 0);
	return went(name_path(protocol), TC_ACT_REDIRECT);
}

/* The way of a known next hop, or NOT_OURS, and nothing is changed. Without an agent
 * that vouches for it, VXLAN is left to the device; any other packet needs only a MAC.
 *
 * `may_be_cut`: pods were told what fits without VXLAN. A packet that needs it all the
 * same may be too long then, and nobody can be told: the underlay cuts it, if it is
 * IPv4.
 */
static __always_inline int send_by_nexthop(struct __sk_buff *ctx, const struct packet *packet,
					   const union ip_addr *vtep, __u32 measured,
					   enum exit exit, bool *may_be_cut)
{
	struct self *own = get_self();
	struct nexthop *nexthop;
	bool fresh = own && is_fresh(own);
	__u32 protocol;
	int verdict;

	if (!own || (!fresh && !config.direct && !config.ipip))
		return NOT_OURS;
	nexthop = lookup_nexthop(vtep);
	if (!nexthop)
		return NOT_OURS;
	protocol = choose_protocol(packet, nexthop);
	*may_be_cut = protocol != IPPROTO_UDP;
	if (protocol == IPPROTO_UDP && (!fresh || !config.own_encap || exit != ANY_EXIT))
		return NOT_OURS;
	if (protocol == NO_OUTER && !may_go_directly(packet, nexthop, vtep))
		return NOT_OURS;
	/* bytes behind the end of the IP packet, padding, count on the wire */
	if (measured > nexthop->mtu || (!ctx->gso_size && ctx->len - ETH_HLEN > nexthop->mtu))
		return NOT_OURS;

	if (!nexthop->used) /* no write for each packet: CPUs share the line */
		nexthop->used = 1;
	if (protocol != IPPROTO_UDP && (!fresh || nexthop->flags & NEXTHOP_UNRESOLVED))
		return send_by_kernels_table(ctx, packet, protocol, nexthop, vtep);
	verdict = push_outer(ctx, packet, protocol, own, vtep, nexthop->dst_mac);
	return verdict ? verdict : leave_by(nexthop->ifindex, name_path(protocol));
}

/* Whether a path of which nothing is known is so wide because it is meant for IPIP. A
 * packet that takes VXLAN there may be longer than that leaves room for.
 */
static __always_inline bool is_for_ipip(__u32 path_mtu)
{
	return config.ipip && path_mtu == config.overlay_mtu;
}

/* The way out to another node. Every packet that leaves a pod or the host's stack
 * for another node passes here once, whoever makes the outer headers. What must
 * happen to each of them belongs at the top of this function.
 *
 * `measured` as measure_packet() says. For THIS_DEVICE it does not count, as the
 * stack has routes with the MTU of each narrow path. -DROP_TOO_BIG leaves the packet
 * unchanged.
 */
static __always_inline int send_to_node(struct __sk_buff *ctx, const struct packet *packet,
					const union ip_addr *vtep, __u32 measured, enum exit exit)
{
	__u32 path_mtu = config.overlay_mtu, sender_mtu;
	bool may_be_cut = false;
	int verdict = NOT_OURS;
	__u64 tunnel_flags;

	if (config.direct || config.ipip || (config.own_encap && exit == ANY_EXIT))
		verdict = send_by_nexthop(ctx, packet, vtep, measured, exit, &may_be_cut);
	if (verdict != NOT_OURS)
		return verdict;
	if (!config.vxlan_ifindex)
		return -DROP_UNKNOWN_DESTINATION;

	if (exit == ANY_EXIT || config.ipip || !is_ip4(packet))
		path_mtu = get_path_mtu(vtep);
	sender_mtu = get_sender_mtu(packet, path_mtu);
	may_be_cut = may_be_cut || sender_mtu > path_mtu || is_for_ipip(path_mtu);
	tunnel_flags = may_be_cut ? 0 : BPF_F_DONT_FRAGMENT;
	if (exit == ANY_EXIT)
		return measured > sender_mtu ? -DROP_TOO_BIG :
					       send_by_device(ctx, vtep, tunnel_flags);
	verdict = prepare_for_device(ctx, vtep, tunnel_flags);
	return verdict ? verdict : went(PATH_DEVICE, TC_ACT_OK);
}
