/* SPDX-License-Identifier: GPL-2.0-only */
/* endpoints: address of a pod on this node -> the host end of its pair */
#pragma once

#include "types.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, union ip_addr);
	__type(value, struct endpoint);
} endpoints SEC(".maps");

static __always_inline struct endpoint *lookup_endpoint(const union ip_addr *addr)
{
	return bpf_map_lookup_elem(&endpoints, addr);
}

/* The pod at `addr`, if this is its host end. */
static __always_inline struct endpoint *lookup_endpoint_behind(__u32 ifindex,
							       const union ip_addr *addr)
{
	struct endpoint *ep = lookup_endpoint(addr);

	return ep && ep->ifindex == ifindex ? ep : NULL;
}
