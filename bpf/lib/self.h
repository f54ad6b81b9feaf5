/* SPDX-License-Identifier: GPL-2.0-only */
/* self: this node's underlay address, and whether the agent vouches for the
 * next hops
 */
#ifndef PYCNI_SELF_H
#define PYCNI_SELF_H

#include <stdbool.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "address.h"

/* An array, for the verifier makes a lookup in it a few instructions. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct self);
} self SEC(".maps");

static __always_inline struct self *get_self(void)
{
	__u32 first = 0;

	return bpf_map_lookup_elem(&self, &first);
}

static __always_inline bool is_own_vtep(const union ip_addr *addr)
{
	struct self *own = get_self();

	return own && same_address(addr, &own->vtep);
}

/* With the agent dead a next hop may change and nobody tells: then it is the
 * kernel's turn, which follows its own tables. The coarse clock is behind by a
 * tick at most and costs a fifth of the precise one.
 */
static __always_inline bool is_fresh(const struct self *own)
{
	return bpf_ktime_get_coarse_ns() < own->fresh_until;
}

#endif
