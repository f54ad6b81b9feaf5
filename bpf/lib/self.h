/* SPDX-License-Identifier: GPL-2.0-only */
/* self: this node's underlay address, and until when the next hops hold */
#pragma once

#include "address.h"
#include "config.h"

/* An array: the verifier turns a lookup into a few instructions. */
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

/* Without an agent nobody updates `nexthops`: then the kernel's own tables say how
 * packets leave, in VXLAN by the VXLAN device, all others by fib.h. The coarse clock
 * is at most a tick late, and takes a fifth of the time of the precise one. Linux
 * has it since 5.11, so every kernel on which programs build VXLAN.
 */
static __always_inline bool is_fresh(const struct self *own)
{
	__u64 now = config.own_encap ? bpf_ktime_get_coarse_ns() : bpf_ktime_get_ns();

	return now < own->fresh_until;
}
