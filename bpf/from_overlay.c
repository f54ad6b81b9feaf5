// SPDX-License-Identifier: GPL-2.0-only
/* tc ingress of the overlay device: what other nodes send, unwrapped by the
 * kernel, and what from_container hands to the host's stack.
 */

#include "lib/types.h"
#include "lib/arrival.h"
#include "lib/config.h"
#include "lib/deliver.h"
#include "lib/parse.h"
#include "lib/tunnel.h"
#include "lib/verdict.h"
#include "lib/vteps.h"

static __always_inline int receive_from_node(struct __sk_buff *ctx, const struct tunnel *tunnel)
{
	struct packet packet = {};
	struct route route = {};
	int drop;

	if (tunnel->vni != config.vni)
		return -DROP_WRONG_VNI;
	if (!is_known_vtep(&tunnel->remote))
		return -DROP_UNKNOWN_VTEP;
	if (config.tunnel_key_local && !is_own_vtep(&tunnel->local))
		return -DROP_NOT_VTEP;
	drop = parse_packet(ctx, &packet);
	if (drop)
		return drop;
	drop = admit_packet(ctx, &packet, &tunnel->remote, &route);
	if (drop)
		return drop;
	return route.ep ? deliver_to_pod(ctx, route.ep) : went(PATH_STACK, TC_ACT_OK);
}

static __always_inline int receive_packet(struct __sk_buff *ctx)
{
	struct tunnel tunnel;
	long err = read_tunnel(ctx, &tunnel);

	/* The VXLAN device gives metadata to every packet. One without it comes
	 * from from_container, which has checked and counted it.
	 */
	if (err == NO_TUNNEL)
		return went(PATH_NONE, TC_ACT_OK);
	return err ? -DROP_BAD_TUNNEL : receive_from_node(ctx, &tunnel);
}

SEC("tc")
int from_overlay(struct __sk_buff *ctx)
{
	return settle_verdict(ctx, FROM_OVERLAY, receive_packet(ctx));
}

char LICENSE[] SEC("license") = "GPL";
