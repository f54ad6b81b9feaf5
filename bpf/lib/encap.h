/* SPDX-License-Identifier: GPL-2.0-only */
/* How a packet gets to another node. */
#ifndef PYCNI_ENCAP_H
#define PYCNI_ENCAP_H

#include <linux/pkt_cls.h>

#include "ethernet.h"
#include "tunnel.h"

/* For a packet on its way out of the overlay device. */
static __always_inline int encap(struct __sk_buff *ctx,
				 const union ip_addr *vtep)
{
	int drop = write_macs(ctx, config.gateway_mac, config.overlay_mac);

	if (!drop)
		drop = write_tunnel(ctx, vtep);
	return drop ? drop : TC_ACT_OK;
}

static __always_inline int encap_and_redirect(struct __sk_buff *ctx,
					      const union ip_addr *vtep)
{
	int drop = encap(ctx, vtep);

	if (drop)
		return drop;
	return bpf_redirect(config.overlay_ifindex, 0);
}

#endif
