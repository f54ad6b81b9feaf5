// SPDX-License-Identifier: GPL-2.0-only
/* tc egress of each pod's host end: what the host's stack sends to the pod, and
 * what other programs send by the host end. What they put into the pair directly
 * does not come here, or is marked.
 */

#include "lib/types.h"
#include "lib/config.h"
#include "lib/deliver.h"
#include "lib/dhcp.h"
#include "lib/endpoints.h"
#include "lib/parse.h"
#include "lib/undo.h"
#include "lib/verdict.h"

static __always_inline int receive_packet(struct __sk_buff *ctx)
{
	struct packet packet = {};
	struct endpoint *ep;
	bool group;
	int drop;

	if (config.netkit && ctx->mark == DELIVERED_MARK)
		return went(PATH_NONE, TC_ACT_OK);
	drop = parse_packet(ctx, &packet);
	if (drop)
		return drop;
	group = packet.scope == SCOPE_GROUP;
	ep = lookup_endpoint_behind(ctx->ifindex, &packet.dst);
	if (group || !ep) /* then only as an answer of DHCP */
		ep = lookup_dhcp_client(ctx, &packet, DHCP_CLIENT);
	if (!ep || ep->ifindex != ctx->ifindex)
		return group ? -DROP_MULTICAST : -DROP_WRONG_ENDPOINT;
	if (config.services) {
		drop = undo_translation(ctx, &packet);
		if (drop)
			return drop;
	}
	drop = pass_door(ctx, ep);
	return drop ? drop : went(PATH_POD, TC_ACT_OK);
}

SEC("tc")
int to_container(struct __sk_buff *ctx)
{
	return settle_verdict(ctx, TO_CONTAINER, receive_packet(ctx));
}

char LICENSE[] SEC("license") = "GPL";
