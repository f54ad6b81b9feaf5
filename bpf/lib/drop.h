/* SPDX-License-Identifier: GPL-2.0-only */
/* drops: packets and bytes by program and reason */
#pragma once

#include <linux/pkt_cls.h>

#include "config.h"
#include "events.h"

enum {
	DROPS_ENTRIES = ATTACH_POINTS * DROP_REASONS
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, DROPS_ENTRIES);
	__type(key, __u32);
	__type(value, struct drop_count);
} drops SEC(".maps");

/* Counts every packet, and makes an event of some. */
static __always_inline int drop_packet(struct __sk_buff *ctx, enum attach_point point,
				       enum drop_reason reason)
{
	__u32 index = point * DROP_REASONS + reason;
	struct drop_count *count = bpf_map_lookup_elem(&drops, &index);

	if (count) {
		if (!(count->packets & config.event_mask))
			send_drop_event(ctx, point, reason);
		count->packets++;
		count->bytes += ctx->len;
	}
	return TC_ACT_SHOT;
}
