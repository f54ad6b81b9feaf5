/* SPDX-License-Identifier: GPL-2.0-only */
/* The way back of what translate.h has translated: an answer seems to come from the
 * Service again. It may be asked of any packet, and twice of the same.
 */
#pragma once

#include "flows.h"
#include "icmp_error.h"
#include "rewrite.h"

/* Of a packet for a pod, from elsewhere than a pod of this node. */
static __noinline int undo_translation(struct __sk_buff *ctx, struct packet *packet)
{
	struct flow_key key = {};
	struct flow *flow;
	__u64 now;
	__u8 tcp_flags;

	if (!read_flow(ctx, packet, &key, &tcp_flags))
		return translate_error(ctx, packet);
	flow = lookup_flow(&key);
	if (!flow || flow->flags & FLOW_REQUEST)
		return 0;
	now = bpf_ktime_get_ns();
	if (is_expired(flow, now))
		return 0;
	touch_flow(&key, flow, tcp_flags, now);
	return rewrite_packet(ctx, packet, &key, &flow->to);
}
