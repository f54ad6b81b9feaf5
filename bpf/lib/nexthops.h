/* SPDX-License-Identifier: GPL-2.0-only */
/* nexthops: underlay address of another node -> how packets to it leave */
#pragma once

#include "types.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, union ip_addr);
	__type(value, struct nexthop);
} nexthops SEC(".maps");

static __always_inline struct nexthop *lookup_nexthop(const union ip_addr *vtep)
{
	return bpf_map_lookup_elem(&nexthops, vtep);
}
