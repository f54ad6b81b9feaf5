/* SPDX-License-Identifier: GPL-2.0-only */
/* VXLAN that a pod makes by itself. To pods it may send what it likes. */
#ifndef PYCNI_FORGED_H
#define PYCNI_FORGED_H

#include <stddef.h>
#include <linux/udp.h>

#include "config.h"
#include "upper.h"

/* A packet that leaves a pod, or the overlay, for another than a pod: a node would
 * take VXLAN for that of the node that it seems to come from. Fragments behind the
 * first pass, since they cannot become a packet without it.
 */
static __noinline int refuse_vxlan(struct __sk_buff *ctx,
				   const struct packet *packet)
{
	struct upper upper = {};
	int drop = find_upper(ctx, packet, ETH_HLEN, &upper);
	__be16 port;

	if (drop || !upper.present || upper.proto != IPPROTO_UDP)
		return drop;
	if (bpf_skb_load_bytes(ctx, upper.off + offsetof(struct udphdr, dest),
			       &port, sizeof(port)))
		return -DROP_TRUNCATED;
	return port == config.vxlan_port ? -DROP_FORGED_VXLAN : 0;
}

#endif
