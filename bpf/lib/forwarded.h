/* SPDX-License-Identifier: GPL-2.0-only */
/* forwarded: packets and bytes by program and path */
#pragma once

#include "types.h"

enum {
	FORWARDED_ENTRIES = ATTACH_POINTS * PATHS
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, FORWARDED_ENTRIES);
	__type(key, __u32);
	__type(value, struct path_count);
} forwarded SEC(".maps");

/* A GSO packet counts as one. Bytes are those with which it leaves the program:
 * with outer headers if the program wrote them.
 */
static __always_inline void count_forwarded(struct __sk_buff *ctx, enum attach_point point,
					    enum packet_path path)
{
	__u32 index = point * PATHS + path;
	struct path_count *count = bpf_map_lookup_elem(&forwarded, &index);

	if (!count)
		return;
	count->packets++;
	count->bytes += ctx->len;
}
