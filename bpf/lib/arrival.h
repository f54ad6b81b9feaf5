/* SPDX-License-Identifier: GPL-2.0-only */
/* What another node sent: whether it may, and for whom it is. */
#pragma once

#include "classify.h"
#include "deliver.h"
#include "forged.h"
#include "messages.h"
#include "nodes.h"
#include "remotes.h"
#include "undo.h"

/* Of a packet whose source is known to be the sending node's: 0 if it is for a pod of
 * this node, `route->ep`, or for this node's stack, if that is NULL.
 */
static __always_inline int find_receiver(struct __sk_buff *ctx, struct packet *packet,
					 struct route *route)
{
	enum destination dst;
	int drop;

	drop = check_messages(ctx, packet);
	if (drop)
		return drop;
	dst = classify_here(&packet->dst, route);
	if (dst == LOCAL_POD)
		return config.services ? undo_translation(ctx, packet) : 0;
	if (dst != OWN_GATEWAY && !is_own_address(&packet->dst))
		return -DROP_UNKNOWN_DESTINATION;
	return refuse_tunnel(ctx, packet);
}

/* The same of one that the node at `vtep` sent: for its pods or for itself. */
static __always_inline int admit_packet(struct __sk_buff *ctx, struct packet *packet,
					const union ip_addr *vtep, struct route *route)
{
	if (packet->scope)
		return packet->scope == SCOPE_LINK ? -DROP_LINK_LOCAL : -DROP_MULTICAST;
	if (!is_behind(vtep, &packet->src) && !is_of_node(vtep, &packet->src))
		return -DROP_SPOOFED_INNER;
	return find_receiver(ctx, packet, route);
}
