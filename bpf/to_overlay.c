// SPDX-License-Identifier: GPL-2.0-only
/* tc egress of the overlay device: what the host's stack sends to any pod, on
 * this node or another. The device enforces its MTU itself.
 */

#include "lib/types.h"
#include "lib/classify.h"
#include "lib/config.h"
#include "lib/deliver.h"
#include "lib/dhcp.h"
#include "lib/encap.h"
#include "lib/parse.h"
#include "lib/tunnel.h"
#include "lib/verdict.h"

/* DHCP answers a pod at an address that the pod does not have yet. */
static __always_inline int send_to_dhcp_client(struct __sk_buff *ctx, const struct packet *packet,
					       int drop)
{
	struct endpoint *ep = lookup_dhcp_client(ctx, packet, DHCP_CLIENT);

	return ep ? send_to_host_end(ep) : drop;
}

/* Of a pod of this node, and not by its link: of another machine. The guard in the
 * stack knows pods by the cluster's networks, and some have addresses outside of those.
 * What comes by this device, one of our programs gave to the stack: to be cut into
 * fragments, say.
 */
static __always_inline bool is_of_forged_pod(struct __sk_buff *ctx, const struct packet *packet)
{
	struct endpoint *ep;

	/* 0: of a process of this host, which may be a proxy */
	if (!ctx->ingress_ifindex || ctx->ingress_ifindex == ctx->ifindex)
		return false;
	ep = lookup_endpoint(&packet->src);
	return ep && ep->ifindex != ctx->ingress_ifindex;
}

static __always_inline int send_packet(struct __sk_buff *ctx)
{
	struct packet packet = {};
	struct route route = {};
	struct tunnel tunnel;
	long err = read_tunnel(ctx, &tunnel);
	int drop;

	if (!err) /* from_container has done everything, and counted it */
		return went(PATH_NONE, TC_ACT_OK);
	if (err != NO_TUNNEL)
		return -DROP_BAD_TUNNEL;
	drop = parse_packet(ctx, &packet);
	if (drop)
		return drop;
	if (is_of_forged_pod(ctx, &packet))
		return -DROP_SPOOFED_SOURCE;
	if (packet.scope == SCOPE_GROUP)
		return send_to_dhcp_client(ctx, &packet, -DROP_MULTICAST);

	switch (classify(&packet.dst, &route)) {
	case LOCAL_POD:
		return send_to_host_end(route.ep);
	case REMOTE_POD:
		return send_to_node(ctx, &packet, route.vtep, 0, THIS_DEVICE);
	default:
		return send_to_dhcp_client(ctx, &packet, -DROP_UNKNOWN_DESTINATION);
	}
}

SEC("tc")
int to_overlay(struct __sk_buff *ctx)
{
	return settle_verdict(ctx, TO_OVERLAY, send_packet(ctx));
}

char LICENSE[] SEC("license") = "GPL";
