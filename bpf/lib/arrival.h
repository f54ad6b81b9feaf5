/* SPDX-License-Identifier: GPL-2.0-only */
/* What another node sent, whose source is known to be that node's: for whom it is. */
#ifndef PYCNI_ARRIVAL_H
#define PYCNI_ARRIVAL_H

#include "classify.h"
#include "deliver.h"
#include "forged.h"
#include "messages.h"
#include "nodes.h"

/* 0 for a pod of this node, `route->ep`, or for this node's stack, if that is NULL. */
static __always_inline int find_receiver(struct __sk_buff *ctx,
					 const struct packet *packet,
					 struct route *route)
{
	enum destination dst;
	int drop;

	drop = check_messages(ctx, packet, ETH_HLEN);
	if (drop)
		return drop;
	dst = classify_here(&packet->dst, route);
	if (dst == LOCAL_POD)
		return 0;
	if (dst != OWN_GATEWAY && !is_own_address(&packet->dst))
		return -DROP_UNKNOWN_DESTINATION;
	return refuse_tunnel(ctx, packet);
}

#endif
