// SPDX-License-Identifier: GPL-2.0-only
/* tc egress of each pod's host end: what the host's stack sends to the pod.
 * What other programs deliver enters the pod behind this point, or is marked.
 */

#include "lib/types.h"
#include "lib/config.h"
#include "lib/deliver.h"
#include "lib/dhcp.h"
#include "lib/drop.h"
#include "lib/endpoints.h"
#include "lib/ethernet.h"
#include "lib/parse.h"

static __always_inline int check_destination(struct __sk_buff *ctx)
{
	struct packet packet = {};
	struct endpoint *ep;
	int drop;

	if (config.netkit && ctx->mark == DELIVERED_MARK)
		return TC_ACT_OK;
	drop = parse_packet(ctx, &packet);
	if (drop)
		return drop;
	ep = lookup_endpoint_behind(ctx->ifindex, &packet.dst);
	if (packet.multicast || !ep) /* else only DHCP's answers */
		ep = lookup_dhcp_client(ctx, &packet, DHCP_CLIENT);
	if (!ep || ep->ifindex != ctx->ifindex)
		return packet.multicast ? -DROP_MULTICAST :
					  -DROP_WRONG_ENDPOINT;
	drop = write_macs(ctx, ep->mac, config.gateway_mac);
	return drop ? drop : TC_ACT_OK;
}

SEC("tc")
int to_container(struct __sk_buff *ctx)
{
	return settle_verdict(ctx, TO_CONTAINER, check_destination(ctx));
}

char LICENSE[] SEC("license") = "GPL";
