// SPDX-License-Identifier: GPL-2.0-only
/* tc ingress of each interface by which packets of other machines come in. VXLAN
 * from other nodes goes straight into pods where that can be done (lib/decap.h).
 * The rest of it goes on to the VXLAN device's UDP socket, if it may. What nodes
 * send without outer headers, or in IPIP, is taken where nodes do that (lib/direct.h,
 * lib/ipip.h). All other traffic of the host goes on to filters of others, malformed
 * or not.
 *
 * Fragments, and packets with IPv6 extension headers, escape these checks.
 * from_overlay makes the same ones on VXLAN that the kernel unwraps, and the guard in
 * the stack drops IPIP; but the MAC is seen only here, so it is checked of all that
 * may be VXLAN.
 */

#include "lib/types.h"
#include "lib/config.h"
#include "lib/decap.h"
#include "lib/direct.h"
#include "lib/ipip.h"
#include "lib/parse.h"
#include "lib/self.h"
#include "lib/upper.h"
#include "lib/verdict.h"
#include "lib/vteps.h"
#include "lib/vxlan.h"

static __always_inline bool may_be_vxlan(struct __sk_buff *ctx, const struct packet *packet)
{
	return is_extension(packet->l4_proto) ||
	       (packet->l4_proto == IPPROTO_UDP && is_later_fragment4(packet)) ||
	       is_udp_to(ctx, packet, config.vxlan_port);
}

/* What decap.h has not taken of the VXLAN to this node's VTEP. */
static __always_inline int guard_overlay(struct __sk_buff *ctx, const struct packet *packet)
{
	int drop;

	/* The stack takes what is sent to a group of stations, too. */
	if (config.direct && ctx->pkt_type != PACKET_OTHERHOST && may_be_vxlan(ctx, packet) &&
	    !may_be_from(ctx, packet->src_mac, &packet->src))
		return -DROP_WRONG_NEIGHBOUR;
	if (!is_udp_to(ctx, packet, config.vxlan_port))
		return NOT_OURS;

	if (!is_known_vtep(&packet->src))
		return -DROP_UNKNOWN_VTEP;
	drop = check_vxlan(ctx, packet);
	return drop ? drop : went(PATH_DEVICE, TC_ACT_UNSPEC);
}

static __always_inline int receive_packet(struct __sk_buff *ctx)
{
	struct packet packet = {};
	int verdict = NOT_OURS;

	if (parse_packet(ctx, &packet))
		return NOT_OURS;
	if (config.direct)
		verdict = receive_directly(ctx, &packet);
	if (verdict != NOT_OURS || !is_own_vtep(&packet.dst))
		return verdict;
	if (config.own_encap)
		verdict = decap_ourselves(ctx, &packet);
	if (config.ipip && verdict == NOT_OURS)
		verdict = receive_ipip(ctx, &packet);
	return verdict != NOT_OURS ? verdict : guard_overlay(ctx, &packet);
}

SEC("tc")
int from_underlay(struct __sk_buff *ctx)
{
	return settle_verdict(ctx, FROM_UNDERLAY, receive_packet(ctx));
}

char LICENSE[] SEC("license") = "GPL";
