// SPDX-License-Identifier: GPL-2.0-only
/* tc ingress of the uplink: VXLAN straight into pods, and a guard before the
 * vxlan device's UDP socket for the rest of it. What is not VXLAN to this node
 * is none of our business, broken or not, and goes on to other people's
 * filters.
 *
 * Fragments and IPv6 extension headers can get past it. from_overlay applies
 * the same checks to what the kernel makes of those.
 */

#include "lib/types.h"
#include "lib/config.h"
#include "lib/decap.h"
#include "lib/drop.h"
#include "lib/parse.h"
#include "lib/self.h"
#include "lib/vteps.h"
#include "lib/vxlan.h"

/* If a host port leads it to a pod, the pod's answer to a node goes through the
 * overlay, past the host's connection tracking, unless the node is hidden.
 */
static __always_inline int pass_plain(struct __sk_buff *ctx,
				      const struct packet *packet)
{
	if (is_known_vtep(&packet->src))
		ctx->mark |= config.masquerade_mark;
	return TC_ACT_UNSPEC;
}

static __always_inline int guard_overlay(struct __sk_buff *ctx)
{
	struct packet packet = {};
	int drop;

	if (parse_packet(ctx, &packet) || !is_own_vtep(&packet.dst))
		return TC_ACT_UNSPEC;
	if (!is_udp_to(ctx, &packet, config.vxlan_port))
		return pass_plain(ctx, &packet);

	if (!is_known_vtep(&packet.src))
		return -DROP_UNKNOWN_VTEP;
	drop = check_vni(ctx, &packet, config.vni);
	return drop ? drop : TC_ACT_UNSPEC;
}

static __always_inline int receive_packet(struct __sk_buff *ctx)
{
	int verdict = TC_ACT_UNSPEC;

	if (config.own_encap)
		verdict = decap_ourselves(ctx);
	if (verdict != TC_ACT_UNSPEC)
		return verdict;
	return guard_overlay(ctx);
}

SEC("tc")
int from_underlay(struct __sk_buff *ctx)
{
	return settle_verdict(ctx, FROM_UNDERLAY, receive_packet(ctx));
}

char LICENSE[] SEC("license") = "GPL";
