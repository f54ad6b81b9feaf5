/* SPDX-License-Identifier: GPL-2.0-only */
/* What the kernel's own tables say of the way to another node: packet by packet, where
 * nobody vouches for `nexthops`.
 */
#pragma once

#include "self.h"

#define AF_INET 2 /* no header for BPF has them */
#define AF_INET6 10

/* The kernel's route to `vtep` as bpf_fib_lookup() tells it; 0 and
 * BPF_FIB_LKUP_RET_NO_NEIGH say that there is one. `fib` is zero but for `ifindex`:
 * with BPF_FIB_LOOKUP_OUTPUT the interface by which packets shall leave, else any
 * that forwards.
 */
static __always_inline long ask_kernel(struct __sk_buff *ctx, const union ip_addr *vtep,
				       struct bpf_fib_lookup *fib, __u32 flags)
{
	struct self *own = get_self();

	if (!own)
		return -1;
	if (is_mapped_ip4(vtep)) {
		fib->family = AF_INET;
		fib->ipv4_src = own->vtep.words[3];
		fib->ipv4_dst = vtep->words[3];
	} else {
		fib->family = AF_INET6;
		for (int i = 0; i < 4; i++) {
			fib->ipv6_src[i] = own->vtep.words[i];
			fib->ipv6_dst[i] = vtep->words[i];
		}
	}
	return bpf_fib_lookup(ctx, fib, sizeof(*fib), flags);
}

/* Whether the route that was told leads to `vtep` by no gateway, whose address would
 * be in the place of the destination.
 */
static __always_inline bool is_on_link(const struct bpf_fib_lookup *fib, const union ip_addr *vtep)
{
	if (is_mapped_ip4(vtep))
		return fib->family == AF_INET && fib->ipv4_dst == vtep->words[3];
	for (int i = 0; i < 4; i++)
		if (fib->ipv6_dst[i] != vtep->words[i])
			return false;
	return fib->family == AF_INET6;
}
