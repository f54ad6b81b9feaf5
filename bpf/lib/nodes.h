/* SPDX-License-Identifier: GPL-2.0-only */
/* nodes: every address of every node, this one included -> its VTEP */
#pragma once

#include "self.h"

/* Entries are made when they are needed: nodes have few or many addresses. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, union ip_addr);
	__type(value, struct node);
} nodes SEC(".maps");

static __always_inline struct node *lookup_node(const union ip_addr *addr)
{
	return bpf_map_lookup_elem(&nodes, addr);
}

/* Whether `addr` is an address of the node at `vtep`. */
static __always_inline bool is_of_node(const union ip_addr *vtep, const union ip_addr *addr)
{
	struct node *node;

	if (same_address(vtep, addr))
		return true;
	node = lookup_node(addr);
	return node && same_address(vtep, &node->vtep);
}

static __always_inline bool is_own_address(const union ip_addr *addr)
{
	struct self *own = get_self();

	return own && is_of_node(&own->vtep, addr);
}
