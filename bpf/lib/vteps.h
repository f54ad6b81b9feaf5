/* SPDX-License-Identifier: GPL-2.0-only */
/* vteps: underlay addresses of the other nodes */
#pragma once

#include "types.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, union ip_addr);
	__type(value, struct vtep);
} vteps SEC(".maps");

static __always_inline bool is_known_vtep(const union ip_addr *addr)
{
	return bpf_map_lookup_elem(&vteps, addr);
}
