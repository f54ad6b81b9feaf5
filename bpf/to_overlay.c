// SPDX-License-Identifier: GPL-2.0-only
/* tc egress of the overlay device: what the host's stack sends to any pod, on
 * this node or another. The device itself enforces its MTU.
 */

#include "lib/types.h"
#include "lib/config.h"
#include "lib/dhcp.h"
#include "lib/drop.h"
#include "lib/encap.h"
#include "lib/endpoints.h"
#include "lib/parse.h"
#include "lib/remotes.h"
#include "lib/self.h"
#include "lib/tunnel.h"

/* What goes to no address that is known: an answer to a pod without one. */
static __always_inline int send_to_dhcp_client(struct __sk_buff *ctx,
					       const struct packet *packet,
					       int drop)
{
	struct endpoint *ep = lookup_dhcp_client(ctx, packet, DHCP_CLIENT);

	return ep ? bpf_redirect(ep->ifindex, 0) : drop;
}

static __always_inline int send_to_pod(struct __sk_buff *ctx)
{
	struct packet packet = {};
	struct tunnel tunnel;
	struct remote *remote;
	struct endpoint *ep;
	int drop;

	/* from_container has been here before: nothing is left to do. */
	if (!read_tunnel(ctx, &tunnel))
		return TC_ACT_OK;
	drop = parse_packet(ctx, &packet);
	if (drop)
		return drop;
	if (packet.multicast)
		return send_to_dhcp_client(ctx, &packet,
					   -DROP_MULTICAST);

	ep = lookup_endpoint(&packet.dst);
	if (ep) /* to_container is on that veth, and writes the MACs */
		return bpf_redirect(ep->ifindex, 0);
	remote = lookup_remote(&packet.dst);
	if (remote)
		return encap(ctx, &remote->vtep);
	return send_to_dhcp_client(ctx, &packet, -DROP_UNKNOWN_DESTINATION);
}

SEC("tc")
int to_overlay(struct __sk_buff *ctx)
{
	return settle_verdict(ctx, TO_OVERLAY, send_to_pod(ctx));
}

char LICENSE[] SEC("license") = "GPL";
