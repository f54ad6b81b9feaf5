/* SPDX-License-Identifier: GPL-2.0-only */
/* The Ethernet header, and how to reach the bytes of a packet at all. */
#ifndef PYCNI_ETHERNET_H
#define PYCNI_ETHERNET_H

#include <stdbool.h>
#include <stddef.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <bpf/bpf_helpers.h>

#include "types.h"

/* The verifier takes these two 32-bit fields for pointers only as long as they
 * stay in the 64-bit register they were loaded into; clang, which sees 32 bits,
 * likes to truncate a copy.
 */
#define load_pointer(ctx, field)                                        \
	({                                                              \
		void *pointer;                                          \
		asm volatile("%0 = *(u32 *)(%1 + %2)"                   \
			     : "=r"(pointer)                            \
			     : "r"(ctx),                                \
			       "i"(offsetof(struct __sk_buff, field))); \
		pointer;                                                \
	})

/* The packet if it has `length` readable bytes, or NULL. */
static __always_inline void *get_head(struct __sk_buff *ctx, __u32 length)
{
	void *head = load_pointer(ctx, data);

	if (head + length > load_pointer(ctx, data_end))
		return NULL;
	return head;
}

/* The same for what is not readable yet: only an skb's linear part is, and of a
 * packet from a socket's pages or out of GRO the headers may lie elsewhere.
 * Pulling moves the packet: pointers from before are void, and the verifier
 * says so.
 */
static __always_inline void *pull_head(struct __sk_buff *ctx, __u32 length)
{
	void *head = get_head(ctx, length);

	if (head)
		return head;
	if (bpf_skb_pull_data(ctx, length))
		return NULL;
	return get_head(ctx, length);
}

/* volatile, because one side is often a constant of config.h */
static __always_inline void copy_mac(__u8 *to, const volatile __u8 *from)
{
	for (int i = 0; i < ETH_ALEN; i++)
		to[i] = from[i];
}

static __always_inline bool same_mac(const __u8 *a, const __u8 *b)
{
	for (int i = 0; i < ETH_ALEN; i++)
		if (a[i] != b[i])
			return false;
	return true;
}

static __always_inline int write_macs(struct __sk_buff *ctx,
				      const volatile __u8 *dst,
				      const volatile __u8 *src)
{
	struct ethhdr *eth = pull_head(ctx, sizeof(*eth));

	if (!eth)
		return -DROP_REWRITE_FAILED;
	copy_mac(eth->h_dest, dst);
	copy_mac(eth->h_source, src);
	return 0;
}

#endif
