// SPDX-License-Identifier: GPL-2.0-only
/* tc ingress of the overlay device: what other nodes send, and what
 * from_container hands to the host's stack.
 */

#include "lib/types.h"
#include "lib/config.h"
#include "lib/deliver.h"
#include "lib/drop.h"
#include "lib/endpoints.h"
#include "lib/parse.h"
#include "lib/remotes.h"
#include "lib/self.h"
#include "lib/tunnel.h"
#include "lib/vteps.h"

/* A node speaks for its pods and for itself. */
static __always_inline bool may_send(const union ip_addr *vtep,
				     const union ip_addr *src)
{
	struct remote *remote = lookup_remote(src);

	if (remote && same_address(&remote->vtep, vtep))
		return true;
	return same_address(src, vtep);
}

static __always_inline int receive_from_node(struct __sk_buff *ctx,
					     const struct tunnel *tunnel)
{
	struct packet packet = {};
	struct endpoint *ep;
	int drop;

	if (tunnel->vni != config.vni)
		return -DROP_WRONG_VNI;
	if (!is_known_vtep(&tunnel->remote))
		return -DROP_UNKNOWN_VTEP;
	drop = parse_packet(ctx, &packet);
	if (drop)
		return drop;
	if (packet.multicast)
		return -DROP_MULTICAST;
	if (!may_send(&tunnel->remote, &packet.src))
		return -DROP_SPOOFED_INNER;

	ep = lookup_endpoint(&packet.dst);
	if (ep)
		return deliver_local(ctx, ep);
	if (is_own_gateway(&packet.dst) || is_own_vtep(&packet.dst))
		return TC_ACT_OK;
	return -DROP_UNKNOWN_DESTINATION;
}

static __always_inline int receive_packet(struct __sk_buff *ctx)
{
	struct tunnel tunnel;

	/* The vxlan device gives every packet its metadata: one without was
	 * redirected here by from_container, which has checked it.
	 */
	if (read_tunnel(ctx, &tunnel))
		return TC_ACT_OK;
	return receive_from_node(ctx, &tunnel);
}

SEC("tc")
int from_overlay(struct __sk_buff *ctx)
{
	return settle_verdict(ctx, FROM_OVERLAY, receive_packet(ctx));
}

char LICENSE[] SEC("license") = "GPL";
