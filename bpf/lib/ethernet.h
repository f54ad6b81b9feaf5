/* SPDX-License-Identifier: GPL-2.0-only */
/* The Ethernet header, and how to reach the bytes of a packet at all. */
#pragma once

#include <linux/if_ether.h>

#include "types.h"

/* The verifier accepts these two 32-bit fields as pointers only in the 64-bit
 * register that they were loaded into. To clang they are 32 bits, and it may
 * truncate a copy.
 */
#define load_pointer(ctx, field)                                                  \
	({                                                                        \
		void *pointer;                                                    \
		asm volatile("%0 = *(u32 *)(%1 + %2)"                             \
			     : "=r"(pointer)                                      \
			     : "r"(ctx), "i"(offsetof(struct __sk_buff, field))); \
		pointer;                                                          \
	})

/* The packet if it has `length` readable bytes, or NULL. */
static __always_inline void *get_head(struct __sk_buff *ctx, __u32 length)
{
	void *head = load_pointer(ctx, data);

	if (head + length > load_pointer(ctx, data_end))
		return NULL;
	return head;
}

/* The same, for bytes that may not be readable yet. Only the linear part of an skb
 * is; of a packet from a socket's pages or from GRO, headers may be elsewhere. To
 * pull them moves the packet, and earlier pointers become invalid.
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

/* In half words, to which a MAC is aligned wherever it is; clang would go byte by
 * byte. volatile, because one side is often a constant of config.h.
 */
static __always_inline void copy_mac(void *to, const volatile void *from)
{
	for (int i = 0; i < ETH_ALEN / 2; i++)
		((__u16 *)to)[i] = ((const volatile __u16 *)from)[i];
}

/* Two MACs that are side by side in both places. */
static __always_inline void copy_macs(void *to, const volatile void *from)
{
	*(__u64 *)to = *(const volatile __u64 *)from;
	*(__u32 *)(to + 8) = *(const volatile __u32 *)(from + 8);
}

static __always_inline bool same_mac(const void *a, const void *b)
{
	for (int i = 0; i < ETH_ALEN / 2; i++)
		if (((const __u16 *)a)[i] != ((const __u16 *)b)[i])
			return false;
	return true;
}

static __always_inline int write_macs(struct __sk_buff *ctx, const volatile void *dst,
				      const volatile void *src)
{
	struct ethhdr *eth = pull_head(ctx, sizeof(*eth));

	if (!eth)
		return -DROP_REWRITE_FAILED;
	copy_mac(eth->h_dest, dst);
	copy_mac(eth->h_source, src);
	return 0;
}
